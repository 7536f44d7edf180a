import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeCertificate, type TlsFiles } from "../helpers/certificate.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import type { Door, Scheme } from "./clients/kit.ts";

/** The real binary with a listener for each scheme, on ports that it chooses itself, so a restart may move them: ask for the door each time. */
export class PeerGateway {
  readonly #gateway: GatewayProcess;
  readonly #folder: string;
  readonly #tls: TlsFiles;
  #urls: string[] = [];

  private constructor(gateway: GatewayProcess, folder: string, tls: TlsFiles) {
    this.#gateway = gateway;
    this.#folder = folder;
    this.#tls = tls;
  }

  /** @param more lines of YAML, beside `mqtt.listeners` and `http` */
  static async start(schemes: readonly Scheme[], limits = ""): Promise<PeerGateway> {
    const folder = await mkdtemp(join(tmpdir(), "tidegate-"));
    const tls = await makeCertificate(folder);
    const listeners = schemes.map((scheme) => {
      const secure = scheme === "mqtts" || scheme === "wss" ? `, tls: { cert: ${tls.cert}, key: ${tls.key} }` : "";
      return `    - { url: "${scheme}://127.0.0.1:0${scheme.startsWith("ws") ? "/mqtt" : ""}"${secure} }\n`;
    });
    const config = `mqtt:\n  listeners:\n${listeners.join("")}${limits}\nhttp: { listen: false }\n`;
    const made = new PeerGateway(await GatewayProcess.create(config), folder, tls);
    await made.#start();
    return made;
  }

  door(scheme: Scheme): Door {
    const url = this.#urls.find((each) => each.startsWith(`${scheme}:`));
    if (url === undefined) throw new Error(`no listener for ${scheme} among ${this.#urls.join(", ")}`);
    return { scheme, port: Number(new URL(url).port), tls: this.#tls };
  }

  /** kill -9, and up again on the same folder. */
  async crash(): Promise<void> {
    await this.#gateway.end("SIGKILL");
    await this.#start();
  }

  async remove(): Promise<void> {
    await this.#gateway.remove();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #start(): Promise<void> {
    const before = this.#gateway.logged;
    await this.#gateway.start();
    const ready = await this.#gateway.line("ready", before);
    this.#urls = ready["listeners"] as string[];
  }
}
