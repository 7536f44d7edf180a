import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { TidegateError } from "../../../src/base/errors.ts";
import type { CodecDefinition } from "../../../src/transform/codecs/registry.ts";

const vectors = join(import.meta.dirname, "..", "..", "vectors");

export function vectorFile<T>(path: string): T {
  return JSON.parse(readFileSync(join(vectors, path), "utf8")) as T;
}

export interface BoilerVectors {
  vectors: Array<{ name: string; codec: string; hex: string; value: Record<string, unknown> }>;
  refused: Array<{ name: string; codec: string; hex: string; error: string }>;
  codecs: Record<string, CodecDefinition>;
}

/** The codecs of the example configuration. */
export const boiler = vectorFile<BoilerVectors>("struct/boiler.json");

export const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** Runs `fn`, which must throw a TidegateError of this code; returns it for more questions. */
export function thrown(code: string, fn: () => unknown): TidegateError {
  try {
    fn();
  } catch (error) {
    expect(error).to.be.instanceOf(TidegateError);
    expect((error as TidegateError).code).to.equal(code);
    return error as TidegateError;
  }
  throw new Error(`nothing was thrown, ${code} expected`);
}
