import { X509Certificate } from "node:crypto";
import type { TlsOptions } from "./options.ts";

type Certificate = TlsOptions["cert"];

const dayMs = 24 * 3600_000;
const hourMs = 3600_000;
/** Who renews by itself does so with a third of the time left, and a month of it at most: what has less was forgotten. */
const leftPart = 1 / 3;
const leftMsMax = 30 * dayMs;

/** When our own certificate ends, and what is to be said about it in time. */
export class CertificateEnd {
  #of: Certificate;
  #fromMs = Number.NaN;
  #toMs = Number.NaN;
  #said: "soon" | "over" | undefined;
  #askedMs = Number.NEGATIVE_INFINITY;

  /** Wall clock; NaN: there is none, or it cannot be read. */
  ms(cert: Certificate): number {
    if (cert !== this.#of) this.#read(cert);
    return this.#toMs;
  }

  /** Whether there may be something to say, once an hour: whoever looks reads the file anew first. @param nowMs monotonic */
  isDue(cert: Certificate, wallMs: number, nowMs: number): boolean {
    if (this.#stage(cert, wallMs) === undefined || nowMs - this.#askedMs < hourMs) return false;
    this.#askedMs = nowMs;
    return true;
  }

  /** To be said, once for each certificate that ends soon, and once more when it has. */
  news(cert: Certificate, wallMs: number): string | undefined {
    const stage = this.#stage(cert, wallMs);
    if (stage === undefined || stage === this.#said) return undefined;
    this.#said = stage;
    const at = new Date(this.#toMs).toISOString();
    if (stage === "over") return `tls.cert has expired (${at}): the cloud refuses the next connection`;
    const left = this.#toMs - wallMs;
    const time = left < 2 * dayMs ? `${Math.floor(left / hourMs)} hours` : `${Math.floor(left / dayMs)} days`;
    return `tls.cert expires in ${time} (${at})`;
  }

  #stage(cert: Certificate, wallMs: number): "soon" | "over" | undefined {
    const toMs = this.ms(cert);
    if (wallMs >= toMs) return "over";
    return toMs - wallMs < Math.min(leftMsMax, (toMs - this.#fromMs) * leftPart) ? "soon" : undefined;
  }

  #read(cert: Certificate): void {
    this.#of = cert;
    this.#said = undefined;
    this.#fromMs = Number.NaN;
    this.#toMs = Number.NaN;
    try {
      if (cert === undefined) return;
      const { validFrom, validTo } = new X509Certificate(cert);
      this.#fromMs = Date.parse(validFrom);
      this.#toMs = Date.parse(validTo);
    } catch {
      // The connection says what is wrong with it.
    }
  }
}
