import type { Message } from "../../base/message.ts";
import { configFault } from "../codecs/fault.ts";
import { autoCodec, contentFormats } from "../codecs/registry.ts";
import { codecNamed } from "../reading.ts";
import type { Step, StepContext } from "./step.ts";

/** MQTT 5 content types (section 3.3.2.3.9) that `decode: auto` knows, without parameters. */
const contentTypes = new Map<string, number>([
  ["text/plain", contentFormats.text],
  ["application/octet-stream", contentFormats.octetStream],
  ["application/json", contentFormats.json],
  ["application/cbor", contentFormats.cbor],
]);

/** Bytes to a JSON value, by a codec's name or by the message's content type ("auto"). @throws TidegateError TG_CONFIG */
export function createDecodeStep(codecName: string, { codecs, where, index }: StepContext): Step {
  if (index !== 0) throw configFault(`${where}: decode must be the first step: it reads the message's bytes`);
  if (codecName !== "auto") {
    const codec = codecNamed(codecName, codecs, where);
    return (_value, { payload }) => codec.decode(payload);
  }
  return (_value, message) => autoCodec(codecs, contentFormatOf(message)).decode(message.payload);
}

function contentFormatOf(message: Message): number | undefined {
  const type = message.properties?.contentType?.split(";", 1)[0]?.trim().toLowerCase();
  return type === undefined ? undefined : (contentTypes.get(type) ?? unknownFormat);
}

/** No Content-Format has this number (they are 16 bits, RFC 7252 section 12.3). */
const unknownFormat = -1;
