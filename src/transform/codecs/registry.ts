import type { Codec } from "../../base/contracts.ts";
import { createCborCodec } from "./cbor.ts";
import { configFault, decodeFault } from "./fault.ts";
import { HexCodec } from "./hex.ts";
import { createJsonCodec, type PayloadLimits } from "./json.ts";
import { StructCodec } from "./struct.ts";
import type { StructDefinition } from "./structDefinition.ts";
import { TextCodec } from "./text.ts";
import { utf8Text } from "./utf8.ts";

/** An entry of `codecs:`. */
export type CodecDefinition =
  | StructDefinition
  | ({ readonly type: "cbor" | "json" } & PayloadLimits)
  | { readonly type: "text" | "hex" };

export interface CodecRegistry {
  /** A codec of the config, or json, cbor, text, hex; undefined when there is none of that name. "auto" is none: see `auto`. */
  get(name: string): Codec | undefined;
  /** The codec of a CoAP Content-Format; undefined for one that is not supported. */
  auto(contentFormat: number | undefined): Codec | undefined;
  readonly names: readonly string[];
}

/** Content-Format numbers of RFC 7252 section 12.3 and RFC 8949 section 9.4. */
export const contentFormats = { text: 0, octetStream: 42, json: 50, cbor: 60 } as const;

/** @throws TidegateError TG_CONFIG, naming codec and field */
export function createCodecs(definitions: Readonly<Record<string, CodecDefinition>>): CodecRegistry {
  const builtIn = {
    json: createJsonCodec("json"),
    cbor: createCborCodec("cbor"),
    text: new TextCodec("text"),
    hex: new HexCodec("hex"),
  };
  const codecs = new Map<string, Codec>(Object.entries(builtIn));
  for (const [name, definition] of Object.entries(definitions)) {
    if (codecs.has(name) || name === "auto") throw configFault(`codec ${name}: the name is built in`);
    codecs.set(name, createCodec(name, definition));
  }
  const byContentFormat = new Map<number | undefined, Codec>([
    [contentFormats.text, builtIn.text],
    [contentFormats.octetStream, builtIn.hex],
    [contentFormats.json, builtIn.json],
    [contentFormats.cbor, builtIn.cbor],
    [undefined, createSniffingCodec(builtIn.json)],
  ]);
  return {
    get: (name) => codecs.get(name),
    auto: (contentFormat) => byContentFormat.get(contentFormat),
    names: [...codecs.keys()],
  };
}

function createCodec(name: string, definition: CodecDefinition): Codec {
  switch (definition.type) {
    case "struct":
      return new StructCodec(name, definition);
    case "cbor":
      return createCborCodec(name, definition);
    case "json":
      return createJsonCodec(name, definition);
    case "text":
      return new TextCodec(name);
    case "hex":
      return new HexCodec(name);
    default:
      return definition satisfies never;
  }
}

/**
 * For payloads that do not say what they are: JSON if it parses, else text. What begins like a JSON object or array and does not parse is
 * a broken reading, and bytes that are no UTF-8 are nobody's text: both are refused.
 */
function createSniffingCodec(json: Codec): Codec {
  return {
    name: "auto",
    decode(payload) {
      try {
        return json.decode(payload);
      } catch (error) {
        const text = utf8Text(payload, "auto: no content-format given");
        if (/^\s*[[{]/.test(text)) throw error;
        return text;
      }
    },
    encode: json.encode,
  };
}

/** As `auto`. @throws TidegateError TG_DECODE for an unsupported format */
export function autoCodec(codecs: CodecRegistry, contentFormat: number | undefined): Codec {
  const codec = codecs.auto(contentFormat);
  if (codec === undefined) throw decodeFault(`unsupported content-format ${contentFormat}`);
  return codec;
}
