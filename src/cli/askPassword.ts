import { StringDecoder } from "node:string_decoder";
import type { ReadStream } from "node:tty";
import { TidegateError } from "../base/errors.ts";

const textBytesMax = 64 * 1024;
const key = { ctrlC: "\u0003", ctrlD: "\u0004", backspace: "\b", ctrlU: "\u0015", delete: "\u007f" } as const;

/** Where a password comes from: process.stdin, or a test's stream. */
export type PasswordInput = NodeJS.ReadableStream & Partial<Pick<ReadStream, "isTTY" | "setRawMode">>;

/**
 * A new password: on a terminal asked for twice and not shown, else all that comes until the end, without the last line break. Never an argument of
 * the command: those can be read by everybody on the machine.
 * @throws TidegateError TG_USAGE when the two differ, nothing comes, or the user gives up
 */
export async function askPassword(input: PasswordInput, show: (text: string) => void): Promise<string> {
  if (input.isTTY !== true) return await readAll(input);
  // Hidden before it is asked for, and until both are there: who sees the question may type at once.
  input.setRawMode?.(true);
  try {
    const password = await readHidden(input, show, "password: ");
    if (password === (await readHidden(input, show, "again: "))) return password;
  } finally {
    input.setRawMode?.(false);
  }
  throw new TidegateError("TG_USAGE", "the two passwords differ; nothing was changed");
}

async function readAll(input: PasswordInput): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of input) {
    const bytes = Buffer.from(chunk);
    length += bytes.length;
    if (length > textBytesMax) throw new TidegateError("TG_USAGE", `more than ${textBytesMax} bytes of password`);
    chunks.push(bytes);
  }
  return new TextDecoder("utf-8", { fatal: false }).decode(Buffer.concat(chunks)).replace(/\r?\n$/, "");
}

/** One line of a terminal in raw mode. */
function readHidden(input: PasswordInput, show: (text: string) => void, prompt: string): Promise<string> {
  show(prompt);
  const decoder = new StringDecoder("utf8");
  let typed: string[] = [];
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void): void => {
      input.off("data", take);
      input.off("end", ended);
      input.pause();
      show("\n");
      settle();
    };
    const gaveUp = (): void => finish(() => reject(new TidegateError("TG_USAGE", "no password; nothing was changed")));
    const ended = gaveUp;
    const take = (chunk: Buffer | string): void => {
      const text = typeof chunk === "string" ? chunk : decoder.write(chunk);
      for (const char of text) {
        if (char === "\r" || char === "\n") return finish(() => resolve(typed.join("")));
        if (char === key.ctrlC || (char === key.ctrlD && typed.length === 0)) return gaveUp();
        if (char === key.ctrlU) typed = [];
        else if (char === key.backspace || char === key.delete) typed.pop();
        else if (typed.length < textBytesMax) typed.push(char);
      }
    };
    input.on("data", take);
    input.on("end", ended);
    input.resume();
  });
}
