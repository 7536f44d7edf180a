import type { Codec, Reading } from "../base/contracts.ts";
import { messageOf } from "../base/errors.ts";
import type { Message, Qos } from "../base/message.ts";
import { configFault } from "./codecs/fault.ts";
import { autoCodec, type CodecRegistry } from "./codecs/registry.ts";
import { jsonPayload, jsonProperties } from "./jsonMessage.ts";
import { createTopicTemplate } from "./topics.ts";

export interface ReadingTransformOptions {
  /** Name of the source. */
  readonly source: string;
  /** Name of a codec, or "auto": by the reading's Content-Format. */
  readonly decode: string;
  /** Topic template: {source}, the reading's variables ({path}), decoded fields ({kind}, {flags.mode}), in this order of precedence. */
  readonly topic: string;
  readonly qos: Qos;
  /** Default false. */
  readonly retain?: boolean | undefined;
}

export type ReadingResult =
  /** `value` is what was decoded: a serial ACK takes its fields from it. */
  | { readonly kind: "message"; readonly message: Message; readonly value: unknown }
  | { readonly kind: "undecodable"; readonly why: string };

export type ReadingTransform = (reading: Reading) => ReadingResult;

/**
 * Makes the function that turns one source's readings into JSON messages. The function never throws.
 * @throws TidegateError TG_CONFIG for an unknown codec or a malformed template
 */
export function createReadingTransform(options: ReadingTransformOptions, codecs: CodecRegistry): ReadingTransform {
  const { source, qos, retain = false } = options;
  const fixed = options.decode === "auto" ? undefined : codecNamed(options.decode, codecs, `source ${source}: decode`);
  const template = createTopicTemplate(options.topic, `source ${source}`);
  const origin = `source:${source}`;
  return (reading) => {
    let value: unknown;
    try {
      value = (fixed ?? autoCodec(codecs, reading.contentFormat)).decode(reading.payload);
    } catch (error) {
      return { kind: "undecodable", why: messageOf(error) };
    }
    const { variables } = reading;
    const filled = template.fill((name) => {
      if (name === "source") return source;
      return variables !== undefined && Object.hasOwn(variables, name) ? variables[name] : undefined;
    }, value);
    if ("fault" in filled) return { kind: "undecodable", why: filled.fault };
    const message = {
      topic: filled.topic,
      payload: jsonPayload(value),
      qos,
      retain,
      properties: jsonProperties,
      source: origin,
    };
    return { kind: "message", message, value };
  };
}

/** @throws TidegateError TG_CONFIG, naming the codecs that there are */
export function codecNamed(name: string, codecs: CodecRegistry, where: string): Codec {
  const codec = codecs.get(name);
  if (codec === undefined) throw configFault(`${where}: no codec "${name}" (there are ${codecs.names.join(", ")})`);
  return codec;
}
