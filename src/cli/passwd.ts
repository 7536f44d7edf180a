import { chown, open, realpath, stat, unlink } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";
import { nodeFiles } from "../base/files.ts";
import { makeUser, passwordFault, type User, userNameFault } from "../base/passwords.ts";
import { replaceFile } from "../base/replaceFile.ts";
import { saslprep } from "../base/saslprep.ts";
import { findUsersFile, formatProblem } from "../config/load.ts";
import { readUsersFile, usersText } from "../config/usersFile.ts";
import { askPassword, type PasswordInput } from "./askPassword.ts";
import type { Io } from "./backup.ts";
import { configFile } from "./check.ts";

export interface PasswdIo extends Io {
  readonly input: PasswordInput;
  /** What belongs on the terminal and not into a pipe; no line break is added. */
  show(text: string): void;
}

export interface PasswdOptions {
  readonly config?: string;
}

/** Longer than writing the file can take: whoever holds the lock for so long is gone. */
const lockMsMax = 10_000;
const lockPollMs = 20;
const applies = "a running gateway takes it up on SIGHUP (systemctl reload tidegate; kill -HUP its process)";

/** `tidegate passwd add NAME`: makes a user, or gives one another password. Exit code 0, 1 (not written), 2 (wrong name, password or file). */
export function passwdAdd(name: string, options: PasswdOptions, io: PasswdIo): Promise<number> {
  return attempt(io, async () => {
    const prepared = saslprep(name) ?? name;
    const fault = userNameFault(prepared);
    if (fault !== null) throw new TidegateError("TG_USAGE", fault);
    const path = await usersFile(options);
    usersOf(path); // a damaged file is said before a password is asked for
    const password = await askPassword(io.input, io.show);
    const wrong = passwordFault(password);
    if (wrong !== null) throw new TidegateError("TG_USAGE", wrong);
    const user = await makeUser(prepared, password);
    const before = await change(path, (users) => [...users.filter((other) => other.name !== prepared), user]);
    const known = before.some((other) => other.name === prepared);
    io.out(`${known ? "another password for" : "added"} ${prepared} in ${path}`);
    if (/[+#/]/.test(prepared)) io.out("a name with + # or / matches no access rule with %u");
    io.out(applies);
    return 0;
  });
}

/** `tidegate passwd remove NAME`. Exit code 0, 1 (not written), 2 (no such user, damaged file). */
export function passwdRemove(name: string, options: PasswdOptions, io: PasswdIo): Promise<number> {
  return attempt(io, async () => {
    const path = await usersFile(options);
    const prepared = saslprep(name) ?? name;
    const before = await change(path, (users) => {
      if (!users.some((user) => user.name === prepared)) {
        throw new TidegateError("TG_USAGE", `there is no user ${prepared} in ${path}`);
      }
      return users.filter((user) => user.name !== prepared);
    });
    io.out(`removed ${prepared} from ${path}`);
    if (before.length === 1)
      io.out("nobody is left in it: only anonymous clients and those with a certificate can connect");
    io.out(applies);
    return 0;
  });
}

/** `tidegate passwd list [NAME]`: the users' names, or whether there is one of that name. Exit code 0, 1 (none of that name), 2 (damaged file). */
export function passwdList(name: string | undefined, options: PasswdOptions, io: PasswdIo): Promise<number> {
  return attempt(io, async () => {
    const prepared = name === undefined ? undefined : (saslprep(name) ?? name);
    const names = usersOf(await usersFile(options)).map((user) => user.name);
    const found = prepared === undefined ? names : names.filter((other) => other === prepared);
    for (const each of found.sort()) io.out(each);
    return prepared !== undefined && found.length === 0 ? 1 : 0;
  });
}

async function attempt(io: Io, work: () => Promise<number>): Promise<number> {
  try {
    return await work();
  } catch (error) {
    const usage = error instanceof TidegateError && (error.code === "TG_USAGE" || error.code === "TG_CONFIG");
    io.err(
      error instanceof TidegateError && error.code === "TG_CONFIG" ? error.message : `tidegate: ${messageOf(error)}`,
    );
    return usage ? 2 : 1;
  }
}

/** The file itself, should the config name a link to it. */
async function usersFile(options: PasswdOptions): Promise<string> {
  const found = findUsersFile(configFile(options));
  if (typeof found !== "string") throw new TidegateError("TG_CONFIG", found.map(formatProblem).join("\n"));
  return await realpath(found).catch(() => found);
}

function usersOf(path: string): readonly User[] {
  const { users, problems } = readUsersFile(path);
  if (problems.length > 0) throw new TidegateError("TG_CONFIG", problems.map(formatProblem).join("\n"));
  return users;
}

/** Reads, changes and replaces the file, alone. @returns who was in it before */
async function change(path: string, to: (users: readonly User[]) => readonly User[]): Promise<readonly User[]> {
  const lock = `${path}.lock`;
  await take(lock, path);
  try {
    const before = usersOf(path);
    const owner = await stat(path).catch(() => undefined);
    await replaceFile(nodeFiles, path, Buffer.from(usersText(to(before))));
    // root writes it for the gateway's user, who has to read it.
    if (owner !== undefined && process.getuid?.() === 0) await chown(path, owner.uid, owner.gid);
    return before;
  } finally {
    await unlink(lock).catch(() => {});
  }
}

/** Two at a time would each write what the other did not know of. */
async function take(lock: string, path: string): Promise<void> {
  for (;;) {
    try {
      await (await open(lock, "wx", 0o600)).close();
      return;
    } catch (error) {
      if (errnoOf(error) === "ENOENT")
        throw new Error(`there is no folder ${dirname(path)}: make it, or set access.usersFile`, { cause: error });
      if (errnoOf(error) !== "EEXIST") throw error;
    }
    const taken = await stat(lock).catch(() => undefined);
    if (taken !== undefined && Math.abs(Date.now() - taken.mtimeMs) > lockMsMax) await unlink(lock).catch(() => {});
    else await sleep(lockPollMs);
  }
}
