import type { Codec } from "../base/contracts.ts";
import type { Message } from "../base/message.ts";
import { decodeFault } from "./codecs/fault.ts";
import { HexCodec } from "./codecs/hex.ts";
import type { CodecRegistry } from "./codecs/registry.ts";
import { StructCodec } from "./codecs/struct.ts";
import { TextCodec } from "./codecs/text.ts";
import { utf8Text } from "./codecs/utf8.ts";
import { codecNamed } from "./reading.ts";

/** Turns a command's payload into the device's bytes. @throws TidegateError TG_DECODE */
export type CommandEncoder = (message: Message) => Uint8Array;

/**
 * The payload is JSON, encoded by the codec. For a struct that asks for exactly one field a bare value will do: `21.5` or `high` instead
 * of `{"setpoint":21.5}`. The codec text takes the payload as it is, hex also without quotes, because a device that reads lines wants
 * what `mosquitto_pub -m` was given.
 * @throws TidegateError TG_CONFIG for an unknown codec
 */
export function createCommandEncoder(codecName: string, codecs: CodecRegistry): CommandEncoder {
  const codec = codecNamed(codecName, codecs, "encode");
  if (codec instanceof TextCodec) return ({ payload }) => codec.encode(codec.decode(payload));
  if (codec instanceof HexCodec) return ({ payload }) => codec.encode(unquoted(payload, codec));
  if (codec instanceof StructCodec) return structEncoder(codec);
  return ({ payload }) => codec.encode(parse(payload, codec, false));
}

function structEncoder(codec: StructCodec): CommandEncoder {
  const [field] = codec.settable;
  const single = codec.settable.length === 1 ? field : undefined;
  return ({ payload }) => {
    const value = parse(payload, codec, single !== undefined);
    const bare = typeof value !== "object" || value === null;
    return codec.encode(bare && single !== undefined ? { [single]: value } : value);
  };
}

/** Not read as JSON: 1234 and 12e4 are bytes here, no numbers. */
function unquoted(payload: Uint8Array, codec: Codec): string {
  return utf8Text(payload, `command for ${codec.name}`)
    .trim()
    .replace(/^"(.*)"$/s, "$1");
}

/** @param bareText text that is not JSON stands for itself, without the blanks around it */
function parse(payload: Uint8Array, codec: Codec, bareText: boolean): unknown {
  const text = utf8Text(payload, `command for ${codec.name}`);
  try {
    return JSON.parse(text);
  } catch {
    const trimmed = text.trim();
    if (bareText && !/^[[{"]/.test(trimmed)) return trimmed;
    throw decodeFault(`command for ${codec.name}: the payload is not valid JSON`);
  }
}
