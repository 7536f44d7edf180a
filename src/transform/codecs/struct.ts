import type { Codec } from "../../base/contracts.ts";
import { decodeFault } from "./fault.ts";
import { checkLayout, type StructDefinition } from "./structDefinition.ts";
import { compileField, type FieldOp } from "./structField.ts";

/**
 * Binary frames described by a list of fields, one after the other without padding:
 *
 *   - { name: kind, type: u8, enum: { 1: status } }          value "status", or the number when it has no name
 *   - { name: temperature, type: i16, scale: 0.01 }          21.53
 *   - { name: flags, type: u8, bits: { door: 0, mode: [2, 3] } }    { door: true, mode: 2 }
 *
 * All offsets are known when it is compiled (only the last field may have a variable length), so one comparison of lengths guards every
 * read. Encoding takes an object, ignores what it does not know, and writes const fields by itself.
 */
export class StructCodec implements Codec {
  readonly name: string;
  /** Fields that encoding asks for: all but const. */
  readonly settable: readonly string[];
  readonly #ops: readonly FieldOp[];
  readonly #bytesMin: number;
  readonly #rest: FieldOp | undefined;
  readonly #exact: boolean;
  readonly #blank: Readonly<Record<string, unknown>>;

  /** @throws TidegateError TG_CONFIG */
  constructor(name: string, definition: StructDefinition) {
    checkLayout(name, definition);
    this.name = name;
    let at = 0;
    this.#ops = definition.fields.map((field) => {
      const op = compileField(name, field, definition.endian, at);
      at += op.width;
      return op;
    });
    this.#bytesMin = at;
    const last = this.#ops.at(-1);
    this.#rest = last?.width === 0 ? last : undefined;
    this.#exact = this.#rest === undefined && definition.trailing !== "ignore";
    this.#blank = Object.fromEntries(this.#ops.map((op) => [op.name, null]));
    this.settable = this.#ops.filter((op) => op.given).map((op) => op.name);
  }

  decode(payload: Uint8Array): Record<string, unknown> {
    if (payload.length < this.#bytesMin) throw this.#short(payload.length);
    if (this.#exact && payload.length > this.#bytesMin) {
      throw decodeFault(
        `${this.name}: ${payload.length} bytes, ${payload.length - this.#bytesMin} more than its fields take`,
      );
    }
    const value = { ...this.#blank }; // a clone has its final shape at once: twice as fast as adding the fields one by one
    for (const op of this.#ops) value[op.name] = op.read(payload);
    return value;
  }

  encode(value: unknown): Uint8Array {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw decodeFault(`${this.name}: wants an object with ${this.settable.join(", ")}`);
    }
    const fields = value as Readonly<Record<string, unknown>>;
    const bytes = Buffer.alloc(this.#bytesMin);
    let tail: Buffer | undefined;
    for (const op of this.#ops) {
      const given: unknown = Object.hasOwn(fields, op.name) ? fields[op.name] : undefined;
      if (op === this.#rest) tail = op.tail?.(given);
      else op.write(bytes, given);
    }
    return tail === undefined ? bytes : Buffer.concat([bytes, tail]);
  }

  #short(length: number): Error {
    const op = this.#ops.find(({ at, width }) => length < at + width);
    const left = Math.max(0, length - (op?.at ?? 0));
    return decodeFault(
      `${this.name}: field ${op?.name} at offset ${op?.at} wants ${op?.width} bytes, ${left} left of ${length}`,
    );
  }
}
