import { crc32 } from "node:zlib";
import type { LetterOrigin, LetterSummary } from "../base/deadLetters.ts";

/** A letter in the catalogue: what is searched and listed. Never its payload or properties, which may hold secrets. */
export interface LetterDocument {
  readonly _id: string;
  readonly n: number;
  readonly from: LetterOrigin;
  readonly code: string;
  readonly text: string;
  readonly attempts: number;
  readonly takenMs: number;
  readonly firstMs: number;
  readonly lastMs: number;
  readonly topic: string;
  readonly source: string;
  readonly bytes: number;
  /** Of all the above, for NeDB has no checksums: a changed digit would load as truth. */
  readonly sum: number;
}

/** The first document: to which store the catalogue belongs. */
export interface StoreDocument {
  readonly _id: "store";
  readonly epoch: number;
}

/** Characters of a topic that are kept: NeDB has all in RAM, and one of MQTT may have 65,535 bytes. */
const topicMax = 500;

/** A topic longer than 500 characters is cut, with "…" behind it: it is listed, and matched by a filter, by its beginning. */
export function documentOf(letter: LetterSummary): LetterDocument {
  const { id, from, code, text, attempts, takenMs, firstMs, lastMs, source, bytes } = letter;
  const topic = letter.topic.length > topicMax ? `${letter.topic.slice(0, topicMax)}…` : letter.topic;
  const fields = { n: id, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes };
  return { _id: String(id), ...fields, sum: sumOf(fields) };
}

/** The same of a file that an earlier version wrote, with whole topics. */
export const shortened = (document: LetterDocument): LetterDocument =>
  document.topic.length > topicMax + 1 ? documentOf(summaryOf(document)) : document;

export function summaryOf(document: LetterDocument): LetterSummary {
  const { n, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes } = document;
  return { id: n, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes };
}

/** Whether a value that was read is a document as it was written. */
export function isWhole(value: Readonly<Record<string, unknown>>): boolean {
  const { _id, n, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes, sum } = value;
  if (_id !== String(n)) return false;
  return sum === sumOf({ n, from, code, text, attempts, takenMs, firstMs, lastMs, topic, source, bytes });
}

/** The order of the fields is that of the literals above, and JSON keeps it. */
const sumOf = (fields: object): number => crc32(JSON.stringify(fields));
