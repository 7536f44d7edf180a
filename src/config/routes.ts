import type * as z from "zod";
import { codecName } from "./codecs.ts";
import {
  decimal,
  duration,
  entryName,
  filePath,
  list,
  oneOf,
  section,
  text,
  topicFilter,
  topicTemplate,
} from "./fields.ts";

/** Exactly one of the keys; the cross-checks see to it. */
const step = () =>
  section({
    decode: codecName().optional(),
    map: text("a JSONata expression").optional(),
    validate: filePath().optional().describe("A JSON Schema"),
    deadband: section({
      field: text("a field's name"),
      by: decimal(0, 1e15).describe("Smaller changes are held back"),
      atLeastEvery: duration(1000).optional().describe("But one value passes at least this often"),
    }).optional(),
  });

const route = () =>
  section({
    name: entryName(),
    from: topicFilter(),
    steps: list(step()).prefault([]),
    to: topicTemplate().describe("{1}: what the first + matched; {rest}: what # matched; {topic}, {gateway}"),
    onError: oneOf("dead-letter", "drop", "pass").prefault("drop"),
  });

export const routes = () => list(route());

export type RouteConfig = z.output<ReturnType<typeof route>>;
export type StepConfig = z.output<ReturnType<typeof step>>;
