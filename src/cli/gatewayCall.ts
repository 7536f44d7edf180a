/** What the commands share that speak to a running gateway. */
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Config } from "../config/load.ts";
import { configOf, type Io } from "./backup.ts";
import { type Ask, ask, isRunning } from "./controlClient.ts";
import { plainText } from "./texts.ts";

export interface CallOptions {
  readonly config?: string;
  readonly json?: boolean;
}

/** Asks the running gateway; resolves to its answer's body. @param also a status that is an answer too, beside 200 @throws with what it said when it refuses; TidegateError TG_USAGE when it did not understand */
export type Call = <T>(request: Ask, also?: number) => Promise<T>;

/**
 * Finds the gateway by its config and runs a command on it. Exit code: the command's, 1 when no gateway answers or it refuses, 2 for a wrong config or
 * a value that the gateway does not understand.
 */
export async function withGateway(
  options: CallOptions,
  io: Io,
  command: (call: Call, config: Config) => Promise<number>,
): Promise<number> {
  const config = await configOf(options, io);
  if (config === undefined) return 2;
  const { dataDir } = config.gateway;
  try {
    if (!(await isRunning(dataDir)))
      throw new TidegateError("TG_DATA_DIR", `no gateway runs on the data folder ${dataDir} (which config? -c FILE)`);
    return await command(async <T>(request: Ask, also?: number): Promise<T> => {
      const { status, body } = await ask(dataDir, request);
      if (status === 200 || status === also) return body as T;
      const message = (body as { error?: { message?: unknown } } | null)?.error?.message;
      // What a route said of a payload may be in it.
      const why = typeof message === "string" && message !== "" ? plainText(message, 1000) : undefined;
      const said = why ?? `the gateway answered ${request.method} ${request.path} with status ${status}`;
      throw status === 400 ? new TidegateError("TG_USAGE", said) : new Error(said);
    }, config);
  } catch (error) {
    io.err(`tidegate: ${messageOf(error)}`);
    return error instanceof TidegateError && error.code === "TG_USAGE" ? 2 : 1;
  }
}

/** A usage that makes no sense: said, exit code 2. */
export function wrongUsage(io: Io, message: string): number {
  io.err(`tidegate: ${message}`);
  return 2;
}
