import * as z from "zod";
import { byType, decimal, entryName, filePath, integer, list, oneOf, otherwise, section, text } from "./fields.ts";

export const integerTypes = ["u8", "i8", "u16", "i16", "u24", "i24", "u32", "i32", "u64", "i64"] as const;
export const fieldTypes = [...integerTypes, "f32", "f64", "string", "bytes"] as const;

const bitsAllowed = "name: BIT or name: [FIRST, LAST], bit 0 being the lowest";
const bit = () => integer(0, 63);

const bitRange = () =>
  z.union([bit(), z.tuple([bit(), bit()])], { error: otherwise("%v is not a bit or a range", bitsAllowed) });

const structField = () =>
  section({
    name: text("a name"),
    type: oneOf(...fieldTypes),
    scale: decimal(-1e15, 1e15, "a number other than 0").optional().describe("value = raw * scale + offset"),
    offset: decimal(-1e15, 1e15).optional(),
    unit: text("a unit, for people and SenML: Cel, Pa, %RH").optional(),
    enum: z
      .record(z.string(), text("a name"), { error: otherwise("%k where a map is expected", "NUMBER: name") })
      .optional()
      .describe("Names of raw values"),
    bits: z
      .record(z.string(), bitRange(), { error: otherwise("%k where a map is expected", bitsAllowed) })
      .optional()
      .describe("The field taken apart"),
    const: z
      .union([z.number(), z.string()], { error: otherwise("%v is not possible", "a number or a text") })
      .optional()
      .describe("Written as is; anything else is refused when read"),
    length: z
      .union([z.literal("rest"), integer(1, 65_535)], {
        error: otherwise("%v is not a length", "1 to 65535 bytes, or rest"),
      })
      .optional()
      .describe("Bytes of a string or bytes field; rest: all that are left, for the last field"),
    endian: oneOf("little", "big").optional().describe("Default: the struct's"),
  });

const struct = () =>
  section({
    type: z.literal("struct"),
    endian: oneOf("little", "big").prefault("little"),
    fields: list(structField()).min(1, { error: "is empty (a list of fields)" }),
    trailing: oneOf("error", "ignore").prefault("error").describe("What bytes after the last field are"),
  });

const csv = () =>
  section({
    type: z.literal("csv"),
    separator: text("one character").max(1, { error: "%v is too long (one character)" }).prefault(","),
    columns: list(text("a name")).optional().describe("Without it the first line names the columns"),
  });

const protobuf = () =>
  section({
    type: z.literal("protobuf"),
    schema: filePath().describe("A .proto file"),
    message: text("the message's full name: plant.Status"),
  });

export const codecTypes = ["struct", "cbor", "json", "text", "csv", "senml", "msgpack", "protobuf", "hex"] as const;

const codec = () =>
  byType(codecTypes.join(" | "), [
    struct(),
    section({ type: z.literal("cbor") }),
    section({ type: z.literal("json") }),
    section({ type: z.literal("text") }),
    csv(),
    section({ type: z.literal("senml"), format: oneOf("json", "cbor").prefault("json") }),
    section({ type: z.literal("msgpack") }),
    protobuf(),
    section({ type: z.literal("hex") }),
  ]);

/** Codecs that need no options and so no entry: they are known by their type's name. */
export const builtInCodecs = ["json", "cbor", "text", "hex", "csv", "senml", "msgpack"] as const;

export const codecs = () =>
  z.record(z.string(), codec(), {
    error: otherwise("%k where a map is expected", "NAME: { type: ... }"),
  });

/** Where a codec is named. */
export const codecName = () => entryName();

export type CodecConfig = z.output<ReturnType<typeof codec>>;
export type StructConfig = z.output<ReturnType<typeof struct>>;
export type StructFieldConfig = z.output<ReturnType<typeof structField>>;
