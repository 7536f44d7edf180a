/**
 * The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding:
 *
 *     client  n,,n=NAME,r=CNONCE                       server  r=CNONCE SNONCE,s=SALT,i=ITERATIONS
 *     client  c=biws,r=CNONCE SNONCE,p=PROOF           server  v=SIGNATURE
 */
import { isUtf8 } from "node:buffer";
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { type ScramVerifier, saltBytes, scramIterations, type User } from "../../base/passwords.ts";

export const scramMethod = "SCRAM-SHA-256";

/** Longer than any message of an honest client: all of it is hashed. */
const messageBytesMax = 4096;
const nonceBytes = 18;

export interface ScramDeps {
  readonly user: (name: string) => User | undefined;
  /** For who does not exist: the same for the same name, so that asking twice tells nothing. */
  readonly fake: (name: string) => ScramVerifier;
  /** Printable, without commas. Default: random. */
  readonly nonce?: () => string;
}

interface Challenge {
  readonly user: User | undefined;
  readonly verifier: ScramVerifier;
  readonly gs2Header: string;
  readonly nonce: string;
  /** client-first-message-bare and server-first-message, what the proof is about. */
  readonly messages: string;
}

/** One exchange; messages that do not keep the form are answered with undefined. */
export class ScramExchange {
  readonly #deps: ScramDeps;
  #challenge: Challenge | undefined;

  constructor(deps: ScramDeps) {
    this.#deps = deps;
  }

  /** @param data client-first-message. @returns server-first-message */
  first(data: Uint8Array): Buffer | undefined {
    const text = textOf(data);
    const [, gs2Header = "", authzid, bare = ""] = /^([ny],(?:a=([^,]+))?,)(.*)$/su.exec(text) ?? []; // p=...: channel binding
    // An extension before the name (m=) must not be ignored (RFC 5802 section 5.1), and we know none.
    const [, name = "", clientNonce = ""] = /^n=([^,]+),r=([\x21-\x2b\x2d-\x7e]{1,256})(?:,.*)?$/su.exec(bare) ?? [];
    const username = saslName(name);
    if (username === undefined || (authzid !== undefined && saslName(authzid) !== username)) return undefined;
    const user = this.#deps.user(username);
    const verifier = user?.scram ?? this.#deps.fake(username);
    const nonce = clientNonce + (this.#deps.nonce?.() ?? randomBytes(nonceBytes).toString("base64"));
    const answer = `r=${nonce},s=${Buffer.from(verifier.salt).toString("base64")},i=${verifier.iterations}`;
    this.#challenge = { user, verifier, gs2Header, nonce, messages: `${bare},${answer}` };
    return Buffer.from(answer);
  }

  /** @param data client-final-message. @returns who proved to know the password, and server-final-message */
  final(data: Uint8Array): { user: User; answer: Buffer } | undefined {
    const challenge = this.#challenge;
    this.#challenge = undefined; // one guess each
    const text = textOf(data);
    const [, withoutProof = "", binding = "", nonce = "", proof = ""] =
      /^(c=([A-Za-z0-9+/=]+),r=([^,]+)(?:,[A-Za-z]=[^,]*)*),p=([A-Za-z0-9+/=]+)$/su.exec(text) ?? [];
    if (challenge === undefined || nonce !== challenge.nonce) return undefined;
    if (binding !== Buffer.from(challenge.gs2Header).toString("base64")) return undefined;
    const { user, verifier, messages } = challenge;
    const authMessage = `${messages},${withoutProof}`;
    const right = proves(verifier, authMessage, Buffer.from(proof, "base64")); // also for who does not exist
    if (user === undefined || !right) return undefined;
    const signature = createHmac("sha256", verifier.serverKey).update(authMessage).digest("base64");
    return { user, answer: Buffer.from(`v=${signature}`) };
  }
}

/** RFC 5802 section 3: what hashes to the stored key is the client's key. */
function proves(verifier: ScramVerifier, authMessage: string, proof: Buffer): boolean {
  const clientKey = createHmac("sha256", verifier.storedKey).update(authMessage).digest();
  if (proof.length !== clientKey.length) return false;
  for (let at = 0; at < clientKey.length; at += 1)
    clientKey.writeUInt8(clientKey.readUInt8(at) ^ proof.readUInt8(at), at);
  return timingSafeEqual(createHash("sha256").update(clientKey).digest(), verifier.storedKey);
}

function textOf(data: Uint8Array): string {
  if (data.length > messageBytesMax || !isUtf8(data) || data.includes(0)) return "";
  return Buffer.from(data).toString();
}

/** `=2C` is a comma and `=3D` an equals sign; others must not be there. Undefined: not a name. */
function saslName(text: string): string | undefined {
  if (text === "" || /=(?!2C|3D)/.test(text)) return undefined;
  return text.replaceAll("=2C", ",").replaceAll("=3D", "=");
}

/** Makes verifiers for names that nobody has. */
export function fakeVerifiers(): (name: string) => ScramVerifier {
  const key = randomBytes(32);
  const of = (what: string, name: string): Buffer => createHmac("sha256", key).update(`${what} ${name}`).digest();
  return (name) => ({
    iterations: scramIterations,
    salt: of("salt", name).subarray(0, saltBytes),
    storedKey: of("stored", name),
    serverKey: of("server", name),
  });
}
