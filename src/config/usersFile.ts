/**
 * The users file (`access.usersFile`), written by `tidegate passwd`:
 *
 *     version: 1
 *     users:
 *       - { name: "admin", scrypt: "$scrypt$ln=14,r=8,p=1$SALT$HASH", scram: "SCRAM-SHA-256$8192:SALT$STORED:SERVER" }
 */
import { isUtf8 } from "node:buffer";
import { errnoOf } from "../base/errors.ts";
import { parseScram, parseScrypt, scramText, scryptText, type User, userNameFault } from "../base/passwords.ts";
import { type ConfigNode, type Reporter, readDocument } from "./document.ts";
import type { Problem } from "./problems.ts";
import { readBounded } from "./readBounded.ts";
import { readFaults } from "./secrets.ts";
import { shown } from "./shown.ts";

const version = 1;
const fileBytesMax = 8 * 1024 * 1024;

export interface UsersRead {
  readonly users: readonly User[];
  /** Sorted by position; the file is theirs. Nothing of a hash is in them. */
  readonly problems: readonly Problem[];
}

/** Reads a users file. One that is not there has no users. Never throws. */
export function readUsersFile(path: string): UsersRead {
  const fault = (message: string): UsersRead => {
    return { users: [], problems: [{ file: path, line: 0, column: 0, path: "", message }] };
  };
  try {
    const bytes = readBounded(path, fileBytesMax);
    if (bytes === undefined) return fault(`too large for a users file (at most ${fileBytesMax} bytes)`);
    return isUtf8(bytes) ? parseUsers(bytes.toString("utf8"), path) : fault("not UTF-8 (a users file is)");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return { users: [], problems: [] };
    return fault(`${readFaults[errnoOf(error)] ?? "cannot be read"} (the users file, readable by the gateway's user)`);
  }
}

/** @param file how problems name it */
export function parseUsers(text: string, file: string): UsersRead {
  const { root, report } = readDocument(text, file, {});
  if (root === undefined || report.problems.length > 0) return { users: [], problems: report.sorted() };
  const empty = root.entries?.size === 0;
  if (!empty) checkHead(root, report);
  const users = new Map<string, User>();
  for (const node of root.list("users")) {
    const user = userOf(node, report);
    if (user === undefined) continue;
    if (users.has(user.name)) report.node(node, `the user ${user.name} is in it already (each name once)`);
    users.set(user.name, user);
  }
  if (report.problems.length > 0) return { users: [], problems: report.sorted() };
  return { users: [...users.values()], problems: [] };
}

const mended = "made by `tidegate passwd`; remove the user's line and add it again";

function checkHead(root: ConfigNode, report: Reporter): void {
  const written = root.get("version");
  if (written?.scalar !== version) {
    const what = typeof written?.scalar === "number" ? `version ${written.scalar}` : "no version";
    report.at(written?.at ?? root.at, "version", `${what} of the users file (${version} is what this program reads)`);
  }
  const users = root.get("users");
  if (users !== undefined && users.items === undefined && users.scalar !== null) {
    report.node(users, "not a list (- { name, scrypt, scram } for each user)");
  }
  for (const [key, node] of root.entries ?? []) {
    if (key !== "version" && key !== "users") report.at(node.keyAt, key, "unknown key (version, users)");
  }
}

function userOf(node: ConfigNode, report: Reporter): User | undefined {
  const [name, scrypt, scram] = ["name", "scrypt", "scram"].map((key) => node.text(key));
  if (name === undefined || scrypt === undefined || scram === undefined) {
    report.node(node, `not a user (- { name, scrypt, scram }, ${mended})`);
    return undefined;
  }
  const fault = userNameFault(name);
  if (fault !== null) {
    const at = node.get("name") ?? node;
    report.node(at, `${shown(at)}: ${fault}`);
    return undefined;
  }
  const [hash, verifier] = [parseScrypt(scrypt), parseScram(scram)];
  if (hash === undefined) report.node(node.get("scrypt") ?? node, `not a scrypt hash of ours (${mended})`);
  if (verifier === undefined) report.node(node.get("scram") ?? node, `not a SCRAM verifier of ours (${mended})`);
  return hash === undefined || verifier === undefined ? undefined : { name, scrypt: hash, scram: verifier };
}

/** The file's text, sorted by name. */
export function usersText(users: readonly User[]): string {
  const sorted = [...users].sort((a, b) => (a.name < b.name ? -1 : 1));
  // Names as JSON, which YAML reads; ${ would name a variable.
  const lines = sorted.map(({ name, scrypt, scram }) => {
    const quoted = JSON.stringify(name).replaceAll("${", "$$${");
    return `  - { name: ${quoted}, scrypt: "${scryptText(scrypt)}", scram: "${scramText(scram)}" }\n`;
  });
  const head =
    "# Users of Tidegate, written by `tidegate passwd`. The hashes are worth guessing at: keep this file to yourself (0600).";
  return `${head}\nversion: ${version}\nusers:${lines.length === 0 ? " []\n" : `\n${lines.join("")}`}`;
}
