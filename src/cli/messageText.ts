/** A message's headers and payload for a terminal. Everything in it came from others. */
import { counted, plainText } from "./texts.ts";

/** As the API has it. */
export interface ShownMessage {
  readonly topic: string;
  readonly source: string;
  readonly taken: string;
  readonly qos: number;
  readonly retain: boolean;
  readonly bytes: number;
  readonly properties: Readonly<Record<string, unknown>>;
  readonly payload: { readonly encoding: "utf8" | "base64"; readonly data: string };
}

/** Bytes of a payload that are shown as hex, and characters as text. `--json` has all of it. */
const hexBytesMax = 1024;
const textMax = 16_384;

export function messageLines({
  topic,
  source,
  taken,
  qos,
  retain,
  bytes,
  properties,
  payload,
}: ShownMessage): string[] {
  const lines = [
    `taken       ${taken} from ${plainText(source, 200)}`,
    `topic       ${plainText(topic, 1000)}`,
    `qos         ${qos}${retain ? ", retained" : ""}`,
  ];
  for (const [name, value] of Object.entries(properties)) {
    if (name !== "userProperties")
      lines.push(`${name.padEnd(11)} ${plainText(typeof value === "string" ? value : JSON.stringify(value), 1000)}`);
    else
      for (const [key, text] of value as Array<[string, string]>)
        lines.push(`property    ${plainText(key, 200)}: ${plainText(text, 1000)}`);
  }
  return [...lines, "", ...payloadLines(payload, bytes)];
}

/** On one line, the beginning of it. */
export function payloadLine({ encoding, data }: ShownMessage["payload"]): string {
  if (encoding === "utf8") return plainText(data, 80);
  const bytes = Buffer.from(data, "base64");
  return `${bytes.subarray(0, 24).toString("hex")}${bytes.length > 24 ? "…" : ""} (hex)`;
}

function payloadLines(payload: ShownMessage["payload"], bytes: number): string[] {
  if (bytes === 0) return ["payload     empty"];
  const size = counted(bytes, "byte");
  if (payload.encoding === "base64") return [`payload     ${size}`, ...hexLines(Buffer.from(payload.data, "base64"))];
  const json = asJson(payload.data);
  if (json !== undefined)
    return [`payload     ${size}, JSON`, ...json.split("\n").map((line) => plainText(line, textMax))];
  // Text with control characters in it is rather bytes.
  if (/[\p{Cc}]/u.test(payload.data.replace(/[\t\r\n]/g, "")))
    return [`payload     ${size}`, ...hexLines(Buffer.from(payload.data))];
  const text = payload.data.slice(0, textMax);
  const cut = text.length < payload.data.length ? [`(the first ${textMax} characters; --json has all)`] : [];
  return [`payload     ${size}, text`, ...text.split(/\r?\n/).map((line) => plainText(line, textMax)), ...cut];
}

/** Set out over lines; undefined when it is no object or list. */
function asJson(text: string): string | undefined {
  if (!/^\s*[[{]/.test(text) || text.length > textMax) return undefined;
  try {
    return JSON.stringify(JSON.parse(text), undefined, 2);
  } catch {
    return undefined;
  }
}

/** `0010  68 65 6c 6c 6f  hello` */
function hexLines(bytes: Buffer): string[] {
  const lines: string[] = [];
  for (let at = 0; at < Math.min(bytes.length, hexBytesMax); at += 16) {
    const row = bytes.subarray(at, Math.min(at + 16, hexBytesMax));
    const hex = row.toString("hex").replace(/../g, "$& ").padEnd(48);
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex} ${row.toString("latin1").replace(/[^\x20-\x7e]/g, ".")}`);
  }
  if (bytes.length > hexBytesMax) lines.push(`(the first ${hexBytesMax} bytes; --json has all)`);
  return lines;
}
