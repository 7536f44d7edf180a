/**
 * What is kept of a user's password: a scrypt hash for log-ins that bring the password, and a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677) for
 * those that only prove that they know it. Neither gives the password back.
 */
import { isUtf8 } from "node:buffer";
import { createHash, createHmac, pbkdf2, randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from "node:crypto";
import { promisify } from "node:util";
import { saslprep } from "./saslprep.ts";

export interface ScryptHash {
  /** log2 of the cost N. */
  readonly ln: number;
  readonly r: number;
  readonly p: number;
  readonly salt: Uint8Array;
  readonly hash: Uint8Array;
}

export interface ScramVerifier {
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly storedKey: Uint8Array;
  readonly serverKey: Uint8Array;
}

export interface User {
  readonly name: string;
  readonly scrypt: ScryptHash;
  readonly scram: ScramVerifier;
}

/** 16 MiB and some 40 ms of one core of a PC, 150 ms on a Raspberry Pi 4: what a device that logs in can wait for, and a thief has to pay for each guess. */
export const scryptCost = { ln: 14, r: 8, p: 1 } as const;
/** The client does this work, and a microcontroller must be able to; RFC 7677 asks for 4096 at least. */
export const scramIterations = 8192;
export const saltBytes = 16;
const hashBytes = 32;
/** Of a password in UTF-8: all that MQTT can carry would be no safer. */
const passwordBytesMax = 1024;
export const userNameBytesMax = 256;

/** What rules understand otherwise. */
const reserved = ["*", "anonymous"];

/** Null when somebody may be called so, else what is wrong with it. Names are kept as `saslprep` leaves them. */
export function userNameFault(name: string): string | null {
  if (name === "") return "a user name must not be empty";
  if (reserved.includes(name)) return `${name} has a meaning of its own in access rules`;
  if (Buffer.byteLength(name) > userNameBytesMax) return `longer than ${userNameBytesMax} bytes`;
  const prepared = saslprep(name);
  if (prepared === undefined) return "control and private characters are not possible in a user name";
  return prepared === name ? null : "not in the form that SASLprep (RFC 4013) gives it";
}

/** Null when it can be a password, else what is wrong with it. Says nothing of the password itself. */
export function passwordFault(password: string): string | null {
  const prepared = saslprep(password);
  if (prepared === undefined) return "control and private characters are not possible in a password";
  if (prepared === "") return "a password must not be empty";
  return Buffer.byteLength(prepared) > passwordBytesMax ? `longer than ${passwordBytesMax} bytes` : null;
}

const scryptOf = promisify<Buffer, Uint8Array, number, object, Buffer>(scrypt);
const pbkdf2Of = promisify(pbkdf2);

/** @param name, password for which userNameFault and passwordFault find nothing */
export async function makeUser(name: string, password: string): Promise<User> {
  const bytes = Buffer.from(saslprep(password) ?? password);
  const salt = randomBytes(saltBytes);
  const hash = await scryptOf(bytes, salt, hashBytes, scryptOptions(scryptCost));
  return { name, scrypt: { ...scryptCost, salt, hash }, scram: await makeScram(bytes, scramIterations) };
}

async function makeScram(password: Uint8Array, iterations: number): Promise<ScramVerifier> {
  const salt = randomBytes(saltBytes);
  const salted = await pbkdf2Of(password, salt, iterations, 32, "sha256");
  return { iterations, salt, ...scramKeys(salted) };
}

/** RFC 5802 section 3. */
export function scramKeys(saltedPassword: Uint8Array): { storedKey: Buffer; serverKey: Buffer } {
  const clientKey = createHmac("sha256", saltedPassword).update("Client Key").digest();
  return {
    storedKey: createHash("sha256").update(clientKey).digest(),
    serverKey: createHmac("sha256", saltedPassword).update("Server Key").digest(),
  };
}

/** A hash that no password has, at the usual cost: who does not exist takes as long as who does. */
export const nobodysHash: ScryptHash = {
  ...scryptCost,
  salt: Buffer.alloc(saltBytes),
  hash: Buffer.alloc(hashBytes),
};

/** A scrypt to be worked out; a copy of it does as well, so it may go to another thread. */
export interface HashTask {
  readonly password: Uint8Array;
  readonly salt: Uint8Array;
  /** Of the hash. */
  readonly bytes: number;
  readonly options: ScryptOptions;
}

/** Calls back once; with undefined when there was no memory for it. */
export type HashBy = (task: HashTask, settled: (hash: Uint8Array | undefined) => void) => void;

/** A thread of libuv's pool and 128 N r bytes are taken meanwhile, so whoever calls bounds how many run at a time. */
export const hashInPool: HashBy = ({ password, salt, bytes, options }, settled) =>
  scrypt(password, salt, bytes, options, (error, hash) => settled(error === null ? hash : undefined));

/** Calls back once. */
export function verifyPassword(
  kept: ScryptHash,
  password: Uint8Array,
  settled: (right: boolean) => void,
  hashBy: HashBy = hashInPool,
): void {
  const { salt, hash } = kept;
  const task = { password: preparedBytes(password), salt, bytes: hash.length, options: scryptOptions(kept) };
  hashBy(task, (found) => settled(found !== undefined && timingSafeEqual(found, hash)));
}

/** As `makeUser` prepared it. Bytes that cannot be a password stay as they are, and are wrong. */
function preparedBytes(password: Uint8Array): Uint8Array {
  if (!isUtf8(password)) return password;
  const prepared = saslprep(Buffer.from(password).toString());
  return prepared === undefined ? password : Buffer.from(prepared);
}

function scryptOptions({ ln, r, p }: { ln: number; r: number; p: number }): ScryptOptions {
  const N = 2 ** ln;
  return { N, r, p, maxmem: 128 * N * r + 256 * r * p + 1024 * 1024 };
}

// ---------------------------------------------------------------- as text

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

/** In the form of the PHC (`$scrypt$ln=14,r=8,p=1$SALT$HASH`). */
export const scryptText = ({ ln, r, p, salt, hash }: ScryptHash): string =>
  `$scrypt$ln=${ln},r=${r},p=${p}$${base64(salt)}$${base64(hash)}`;

/** As PostgreSQL writes it (`SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`). */
export const scramText = ({ iterations, salt, storedKey, serverKey }: ScramVerifier): string =>
  `SCRAM-SHA-256$${iterations}:${base64(salt)}$${base64(storedKey)}:${base64(serverKey)}`;

const scryptPattern = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*)$/;
const scramPattern = /^SCRAM-SHA-256\$(\d{1,8}):([A-Za-z0-9+/]+=*)\$([A-Za-z0-9+/]+=*):([A-Za-z0-9+/]+=*)$/;

/** Undefined when it is none, or one whose check would take more than 64 MiB, no work at all, or cannot be done (scrypt asks for N below 2^(16 r)). */
export function parseScrypt(text: string): ScryptHash | undefined {
  const [, ln, r, p, salt = "", hash = ""] = scryptPattern.exec(text) ?? [];
  const kept = { ln: Number(ln), r: Number(r), p: Number(p), salt: bytesOf(salt), hash: bytesOf(hash) };
  const fits = kept.ln >= 10 && kept.r >= 1 && kept.p >= 1 && kept.p <= 8 && 2 ** kept.ln * kept.r <= 2 ** 19;
  const possible = kept.ln < 16 * kept.r;
  return fits && possible && kept.salt.length >= 8 && kept.salt.length <= 64 && kept.hash.length === hashBytes
    ? kept
    : undefined;
}

/** Undefined when it is none, or one of fewer iterations than RFC 7677 allows. */
export function parseScram(text: string): ScramVerifier | undefined {
  const [, iterations, salt = "", storedKey = "", serverKey = ""] = scramPattern.exec(text) ?? [];
  const kept = {
    iterations: Number(iterations),
    salt: bytesOf(salt),
    storedKey: bytesOf(storedKey),
    serverKey: bytesOf(serverKey),
  };
  const fits = kept.iterations >= 4096 && kept.salt.length >= 8 && kept.salt.length <= 64;
  return fits && kept.storedKey.length === 32 && kept.serverKey.length === 32 ? kept : undefined;
}

const bytesOf = (text: string): Buffer => Buffer.from(text, "base64");
