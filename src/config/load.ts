import { isUtf8 } from "node:buffer";
import { statSync } from "node:fs";
import { hostname as machineName } from "node:os";
import { dirname, resolve } from "node:path";
import { errnoOf } from "../base/errors.ts";
import type { User } from "../base/passwords.ts";
import { topicLevel } from "../base/template.ts";
import { defaultUsersFile } from "./access.ts";
import { findUnavailable } from "./availability.ts";
import { crossCheck } from "./crossChecks.ts";
import { type ConfigNode, type Environment, type Reporter, readDocument } from "./document.ts";
import { checkListeners, everyListenerIsLocal } from "./listenerChecks.ts";
import { checkNamedFiles } from "./namedFiles.ts";
import { makePathsAbsolute } from "./paths.ts";
import type { Problem } from "./problems.ts";
import { readBounded } from "./readBounded.ts";
import type { Config, WrittenConfig } from "./schema.ts";
import { readFaults, readSecrets } from "./secrets.ts";
import { readUsersFile } from "./usersFile.ts";
import { validate } from "./validate.ts";
import { findWarnings } from "./warnings.ts";

export { formatProblem, type Problem } from "./problems.ts";
export type { Config } from "./schema.ts";

export interface LoadOptions {
  /** The config file. Without it (and without `text`) the defaults are the config. */
  readonly path?: string | undefined;
  /** Instead of reading the file; `path` then only says where it would be. */
  readonly text?: string | undefined;
  /** Default: process.env. */
  readonly env?: Environment | undefined;
  /** Default: the machine's. */
  readonly hostname?: string | undefined;
  /** For a gateway that runs: listeners that a start would refuse to open are a warning. */
  readonly running?: boolean | undefined;
  /** Warns of certificates and keys that cannot be read. A start reads them itself. */
  readonly namedFiles?: boolean | undefined;
}

export type LoadResult =
  | {
      readonly ok: true;
      readonly config: Config;
      readonly warnings: Problem[];
      /** What the file uses and this version cannot do: whoever runs the config refuses it. */
      readonly unavailable: Problem[];
      readonly file: string | undefined;
    }
  | { readonly ok: false; readonly problems: Problem[] };

const fileBytesMax = 1024 * 1024;

/** Reads and checks a config; all that is wrong is in the result, sorted by position. Never rejects. */
export async function loadConfig(options: LoadOptions = {}): Promise<LoadResult> {
  const { path, env = process.env, hostname = machineName() } = options;
  const name = path ?? (options.text === undefined ? "(defaults)" : "(text)");
  const folder = path === undefined ? process.cwd() : dirname(resolve(path));
  const read =
    options.text === undefined && path !== undefined
      ? readConfigFile(path, options.running === true)
      : { text: options.text ?? "" };
  if ("fault" in read)
    return { ok: false, problems: [{ file: name, line: 0, column: 0, path: "", message: read.fault }] };
  if (Buffer.byteLength(read.text) > fileBytesMax) {
    return { ok: false, problems: [{ file: name, line: 0, column: 0, path: "", message: tooLarge }] };
  }
  const { root, report } = readDocument(read.text, name, env);
  if (root === undefined) return { ok: false, problems: report.sorted() };
  const secretFiles = readSecrets(root, folder, report);
  const written = validate(root, report);
  crossCheck(root, report);
  const { users, problems: ofUsers } = readUsersFile(usersFileOf(root, folder));
  const open = options.running === true ? report.fork() : report;
  // What is wrong with the users file says more than that there are no users.
  checkListeners(root, report, open, users.length > 0 || ofUsers.length > 0);
  if (written === undefined || report.problems.length + ofUsers.length > 0) {
    return { ok: false, problems: [...report.sorted(), ...ofUsers] };
  }
  makePathsAbsolute(written, folder);
  const config = completed(written, users, { folder, env, hostname, secretFiles });
  const { warnings, unavailable } = remarks(config, root, report);
  if (open !== report) warnings.push(...open.sorted());
  if (options.namedFiles === true) warnings.push(...namedFileWarnings(root, folder, report));
  return { ok: true, config, warnings, unavailable, file: path };
}

/**
 * Where the users file of a config is, whatever else is wrong with that config: the first user is added while there is none.
 * @returns the path, or what keeps the config from being read
 */
export function findUsersFile(path: string | undefined): string | readonly Problem[] {
  if (path === undefined) return resolve(defaultUsersFile);
  const read = readConfigFile(path, false);
  if ("fault" in read) return [{ file: path, line: 0, column: 0, path: "", message: read.fault }];
  const { root, report } = readDocument(read.text, path, process.env);
  return root === undefined ? report.sorted() : usersFileOf(root, dirname(resolve(path)));
}

/** Something that is no path is the schema's to find. */
const usersFileOf = (root: ConfigNode, folder: string): string =>
  resolve(folder, root.get("access")?.text("usersFile") || defaultUsersFile);

const tooLarge = "too large for a config (at most 1 MiB)";

/** A pipe gives its text once: read again it is empty, which is a valid config, and one without rules. */
const notAgain = "a pipe cannot be read twice (a YAML file)";

const notUtf8 = "not UTF-8 (save the file with the encoding UTF-8)";

function readConfigFile(path: string, again: boolean): { text: string } | { fault: string } {
  try {
    if (again && statSync(path).isFIFO()) return { fault: notAgain };
    const bytes = readBounded(path, fileBytesMax);
    if (bytes === undefined) return { fault: tooLarge };
    // Replacement characters would silently make other passwords and topics of it.
    return isUtf8(bytes) ? { text: bytes.toString("utf8") } : { fault: notUtf8 };
  } catch (error) {
    return { fault: `${readFaults[errnoOf(error)] ?? "cannot be read"} (a YAML file)` };
  }
}

interface Surroundings {
  readonly folder: string;
  readonly env: Environment;
  readonly hostname: string;
  readonly secretFiles: ReadonlyMap<string, string>;
}

/** Puts in the defaults that depend on the machine or on other keys. */
function completed(
  written: WrittenConfig,
  users: readonly User[],
  { folder, env, hostname, secretFiles }: Surroundings,
): Config {
  const id = written.gateway.id ?? topicLevel(hostname).replace(/[{}$]/g, "_");
  // systemd names several folders with colons between them.
  const stateFolder = resolve(folder, env["STATE_DIRECTORY"]?.split(":")[0] || "tidegate-data");
  const { mqtt, storage, access } = written;
  return {
    ...written,
    gateway: { ...written.gateway, id, dataDir: written.gateway.dataDir ?? stateFolder },
    storage: { ...storage, maxMessageBytes: storage.maxMessageBytes ?? mqtt.limits.maxPacketSize },
    access: { ...access, users, anonymous: access.anonymous ?? everyListenerIsLocal(mqtt.listeners) },
    sources: written.sources.map((source) =>
      source.type === "coap" ? { ...source, observe: source.observe ?? source.every === undefined } : source,
    ),
    uplinks: written.uplinks.map((uplink, index) => {
      const passwordFile = secretFiles.get(`uplinks[${index}].password`);
      return {
        ...uplink,
        clientId: uplink.clientId ?? id,
        urls: uplink.url === undefined ? uplink.urls : [uplink.url],
        // What a file holds may change while the gateway runs, and is no change of the config then.
        password: passwordFile === undefined ? uplink.password : undefined,
        passwordFile,
      };
    }),
  };
}

function namedFileWarnings(root: ConfigNode, folder: string, report: Reporter): Problem[] {
  const warnings = report.fork();
  checkNamedFiles(root, folder, warnings);
  return warnings.sorted();
}

function remarks(config: Config, root: ConfigNode, report: Reporter) {
  const warnings = report.fork();
  findWarnings(config, root, warnings);
  const unavailable = report.fork();
  findUnavailable(root, unavailable);
  return { warnings: warnings.sorted(), unavailable: unavailable.sorted() };
}
