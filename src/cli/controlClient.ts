/** Asks a running gateway through the socket in its data folder. */
import { request } from "node:http";
import { join } from "node:path";
import { controlAddress, controlName } from "../base/controlPath.ts";
import { errnoOf, messageOf, TidegateError } from "../base/errors.ts";

/** A gateway that lives says how it is at once. */
const answerMsMax = 5_000;
const answerBytesMax = 64 * 1024 * 1024;

export interface Answer {
  readonly status: number;
  /** Parsed JSON. */
  readonly body: unknown;
}

export interface Ask {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  /** Without it as long as it takes. */
  readonly msMax?: number;
}

/**
 * Whether a gateway runs on the data folder and answers.
 * @throws TidegateError TG_DATA_DIR: there is one, but not for us (another user's, or silent)
 */
export async function isRunning(dataDir: string): Promise<boolean> {
  try {
    await ask(dataDir, { method: "GET", path: "/health", msMax: answerMsMax });
    return true;
  } catch (error) {
    const path = join(dataDir, controlName);
    const code = errnoOf(error);
    if (["ENOENT", "ECONNREFUSED", "ENOTDIR"].includes(code)) return false;
    if (code === "EACCES" || code === "EPERM") {
      const why = "it belongs to another user: run this as the gateway's user (sudo -u tidegate tidegate ...)";
      throw new TidegateError("TG_DATA_DIR", `${path}: ${why}`, { cause: error });
    }
    throw new TidegateError("TG_DATA_DIR", `the gateway on ${path} does not answer: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** @throws errno errors of the socket; Error when it takes too long or the answer is not JSON */
export async function ask(dataDir: string, { method, path, body, msMax }: Ask): Promise<Answer> {
  const address = await controlAddress(dataDir);
  try {
    return await new Promise((resolve, reject) => {
      const headers = body === undefined ? {} : { "Content-Type": "application/json" };
      const asked = request({ socketPath: address.path, method, path, headers, agent: false }, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          text += chunk;
          if (text.length > answerBytesMax) asked.destroy(new Error("its answer is too long"));
        });
        response.on("error", reject);
        response.on("end", () => {
          try {
            resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) });
          } catch {
            reject(new Error("its answer is not JSON"));
          }
        });
      });
      if (msMax !== undefined)
        asked.setTimeout(msMax, () => asked.destroy(new Error(`no answer within ${msMax / 1000} s`)));
      asked.on("error", reject);
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  } finally {
    await address.close();
  }
}
