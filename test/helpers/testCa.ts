import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Issued {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** Where they lie, until `remove`. */
  readonly certFile: string;
  readonly keyFile: string;
}

/** An authority of its own with openssl, made at run time: a certificate that is kept with the tests runs out. */
export class TestCa {
  readonly ca: Buffer;
  readonly caFile: string;
  readonly #folder: string;
  #count = 0;

  private constructor(folder: string) {
    this.#folder = folder;
    const { cert, certFile } = this.#make("/CN=Test authority", [], 30);
    this.ca = cert;
    this.caFile = certFile;
  }

  /** Undefined, and a line that says so, where there is no openssl. */
  static make(): TestCa | undefined {
    if (spawnSync("openssl", ["version"]).status === 0) return new TestCa(mkdtempSync(join(tmpdir(), "tidegate-ca-")));
    process.stdout.write("      without TLS: openssl not found: apt-get install openssl\n");
    return undefined;
  }

  /** @param subject `/CN=gw.example` @param names `DNS:gw.example,IP:127.0.0.1` */
  issue(subject: string, names = "IP:127.0.0.1", days = 90): Issued {
    const by = ["-CA", this.caFile, "-CAkey", join(this.#folder, "1.key")];
    return this.#make(
      subject,
      [...by, "-addext", `subjectAltName=${names}`, "-addext", "basicConstraints=CA:FALSE"],
      days,
    );
  }

  /** Valid between two moments, which `openssl req` cannot say. */
  issueBetween(subject: string, from: Date, to: Date, names = "IP:127.0.0.1"): Issued {
    const { keyFile, key } = this.issue(subject, names);
    this.#count += 1;
    const at = (name: string): string => join(this.#folder, `${this.#count}.${name}`);
    execFileSync("openssl", ["req", "-new", "-key", keyFile, "-subj", subject, "-out", at("csr")], { stdio: "pipe" });
    writeFileSync(at("db"), "");
    writeFileSync(
      at("cnf"),
      [
        ...["[ca]", "default_ca = d", "[d]", `database = ${at("db")}`, `new_certs_dir = ${this.#folder}`],
        ...["rand_serial = yes", "default_md = sha256", "policy = p", "x509_extensions = e", "unique_subject = no"],
        ...["[p]", "commonName = supplied", "[e]", "basicConstraints = CA:FALSE", `subjectAltName = ${names}`, ""],
      ].join("\n"),
    );
    const time = (date: Date): string => `${date.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`;
    const span = ["-startdate", time(from), "-enddate", time(to)];
    const by = ["-config", at("cnf"), "-cert", this.caFile, "-keyfile", join(this.#folder, "1.key")];
    const what = ["-batch", "-notext", "-in", at("csr"), "-out", at("crt")];
    execFileSync("openssl", ["ca", ...by, ...span, ...what], { stdio: "pipe" });
    return { cert: readFileSync(at("crt")), key, certFile: at("crt"), keyFile };
  }

  /** One that ends in so many seconds; needs `faketime`: openssl counts in days. */
  issueShort(subject: string, seconds: number): Issued {
    const by = ["-CA", this.caFile, "-CAkey", join(this.#folder, "1.key"), "-addext", "subjectAltName=IP:127.0.0.1"];
    return this.#make(subject, [...by, "-addext", "basicConstraints=CA:FALSE"], 1, [
      "faketime",
      "-f",
      `-${86_400 - seconds}s`,
    ]);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #make(subject: string, more: string[], days: number, prefix: string[] = []): Issued {
    this.#count += 1;
    const certFile = join(this.#folder, `${this.#count}.crt`);
    const keyFile = join(this.#folder, `${this.#count}.key`);
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile];
    const what = ["-subj", subject, "-utf8", "-days", String(days)];
    const [command = "", ...args] = [...prefix, "openssl", "req", "-x509", ...key, "-out", certFile, ...what, ...more];
    execFileSync(command, args, { stdio: "pipe" });
    return { cert: readFileSync(certFile), key: readFileSync(keyFile), certFile, keyFile };
  }
}
