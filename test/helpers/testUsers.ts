/** Users as `tidegate passwd` makes them, but for the cost, and the client's side of SCRAM-SHA-256, written from RFC 5802 and not from ours. */
import { createHash, createHmac, pbkdf2Sync, randomBytes, scryptSync } from "node:crypto";
import type { User } from "../../src/base/passwords.ts";

export function testUser(name: string, password: string): User {
  const salt = randomBytes(16);
  const salted = pbkdf2Sync(password, salt, 4096, 32, "sha256");
  return {
    name,
    scrypt: { ln: 10, r: 8, p: 1, salt, hash: scryptSync(password, salt, 32, { N: 1024, r: 8, p: 1 }) },
    scram: {
      iterations: 4096,
      salt,
      storedKey: createHash("sha256").update(hmac(salted, "Client Key")).digest(),
      serverKey: hmac(salted, "Server Key"),
    },
  };
}

const hmac = (key: Uint8Array, text: string): Buffer => createHmac("sha256", key).update(text).digest();

export class ScramClient {
  readonly #password: string;
  readonly #bare: string;
  readonly #nonce: string;
  /** What the server has to answer at the end. */
  expected = "";

  constructor(name: string, password: string, nonce = randomBytes(12).toString("base64")) {
    this.#password = password;
    this.#nonce = nonce;
    this.#bare = `n=${name.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${nonce}`;
  }

  first(gs2Header = "n,,"): Buffer {
    return Buffer.from(gs2Header + this.#bare);
  }

  /** @param serverFirst as it came. Fails when the nonce does not go on from ours. */
  final(serverFirst: Uint8Array, gs2Header = "n,,"): Buffer {
    const text = Buffer.from(serverFirst).toString();
    const [, nonce = "", salt = "", iterations = ""] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(text) ?? [];
    if (!nonce.startsWith(this.#nonce) || nonce === this.#nonce) throw new Error(`not our nonce: ${text}`);
    const salted = pbkdf2Sync(this.#password, Buffer.from(salt, "base64"), Number(iterations), 32, "sha256");
    const withoutProof = `c=${Buffer.from(gs2Header).toString("base64")},r=${nonce}`;
    const authMessage = `${this.#bare},${text},${withoutProof}`;
    const clientKey = hmac(salted, "Client Key");
    const signature = hmac(createHash("sha256").update(clientKey).digest() as Uint8Array, authMessage);
    const proof = Buffer.from(clientKey.map((byte, at) => byte ^ (signature[at] ?? 0)));
    this.expected = `v=${hmac(hmac(salted, "Server Key"), authMessage).toString("base64")}`;
    return Buffer.from(`${withoutProof},p=${proof.toString("base64")}`);
  }
}
