/**
 * The kinds of values that the config's keys take, as zod schemas. Texts of errors are `what is wrong (what is allowed)`; `%v` stands for
 * what the file says there, which load.ts puts in (never for a secret).
 */
import * as z from "zod";
import { parseTemplate } from "../base/template.ts";
import { topicFilterFault, topicNameFault } from "../base/topic.ts";
import { type AddressScheme, parseAddress } from "./address.ts";
import { nearest, oneLine } from "./problems.ts";
import {
  durationHint,
  durationPattern,
  formatDuration,
  formatSize,
  parseDuration,
  parseSize,
  sizeHint,
  sizePattern,
} from "./units.ts";

z.config({ jitless: true }); // a config is read once: compiling a reader for it takes longer, and stays in memory

interface RawIssue {
  readonly code?: string | undefined;
  readonly input?: unknown;
  readonly keys?: unknown;
}

/** An error map that tells a missing key from a wrong value. */
export const otherwise =
  (wrong: string, allowed: string) =>
  (issue: RawIssue): string =>
    issue.input === undefined ? `is missing (${allowed})` : `${wrong} (${allowed})`;

/** A map with these keys and no others. */
export function section<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  const known = Object.keys(shape);
  return z.strictObject(shape, {
    error: (issue) => {
      if (issue.code === "unrecognized_keys") return issue.keys.map((key) => unknownKey(key, known)).join("\n");
      return otherwise("%k where a map is expected", `keys: ${known.join(", ")}`)(issue);
    },
  });
}

/** `{ password:hunter2 }`: YAML takes all of it for a key, and what follows the colon or blank may be a secret. */
export const shownKey = (key: string): string => /^([^\s:]+)[\s:]/.exec(key)?.[1] ?? key;

/** One line a key, in the order of the issue's keys: load.ts takes them apart again. */
function unknownKey(key: string, known: readonly string[]): string {
  const shown = shownKey(key);
  if (shown !== key) {
    return `unknown key that begins with "${oneLine(shown)}" (a : and a blank go between key and value; allowed: ${known.join(", ")})`;
  }
  return `unknown key "${oneLine(key)}", did you mean "${nearest(key, known)}"? (allowed: ${known.join(", ")})`;
}

export const list = <Item extends z.ZodType>(item: Item) =>
  z.array(item, { error: otherwise("%k where a list is expected", "a list: - and a blank before each entry") });

/** A variant by the value of its `type` key. */
export const byType = <
  const Options extends readonly [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]],
>(
  types: string,
  options: Options,
) =>
  z.discriminatedUnion("type", options, {
    error: (issue) => {
      if (issue.code !== "invalid_union")
        return otherwise("%k where a map is expected", `a map with type: ${types}`)(issue);
      const type = (issue.input as { type?: unknown } | null)?.type;
      return otherwise("%v is not a known type", types)({ input: type });
    },
  });

export const text = (allowed = "a text") =>
  z.string({ error: notText("%k where a text is expected", allowed) }).min(1, { error: `is empty (${allowed})` });

/** YAML reads 12345 and true as something else than text, which surprises most in passwords and ids. */
const notText =
  (wrong: string, allowed: string) =>
  (issue: RawIssue): string => {
    const quotes = typeof issue.input === "number" || typeof issue.input === "boolean" ? "; put it into quotes" : "";
    return otherwise(wrong, `${allowed}${quotes}`)(issue);
  };

/** A text that `fault` finds nothing wrong with. */
export const checkedText = (allowed: string, fault: (value: string) => string | null) =>
  text(allowed).superRefine((value, context) => {
    const wrong = value === "" ? null : fault(value);
    if (wrong !== null) context.addIssue({ code: "custom", message: `%v: ${wrong} (${allowed})` });
  });

export const flag = () => z.boolean({ error: otherwise("%v is not a boolean", "true or false") });

export const oneOf = <const Values extends readonly [string, ...string[]]>(...values: Values) =>
  z.enum(values, { error: otherwise("%v is not known", values.join(" | ")) });

export const oneOfNumbers = <const Values extends readonly [number, ...number[]]>(...values: Values) =>
  z.literal(values, { error: otherwise("%v is not possible", values.join(" | ")) });

/** "100" and 60s are not out of a range. */
const notNumber =
  (allowed: string) =>
  (issue: RawIssue): string =>
    otherwise(typeof issue.input === "number" ? "%v is out of range" : "%v is not a number", allowed)(issue);

export const integer = (min: number, max: number) => {
  const error = notNumber(`a whole number from ${min} to ${max}`);
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error });
};

export const decimal = (min: number, max: number, allowed = `a number from ${min} to ${max}`) => {
  const error = notNumber(allowed);
  return z.number({ error }).min(min, { error }).max(max, { error });
};

/** Written as `16 MiB` or a number of bytes; bytes once parsed. */
export const size = (min: number, max: number = Number.MAX_SAFE_INTEGER) => {
  const range =
    max === Number.MAX_SAFE_INTEGER ? `at least ${formatSize(min)}` : `${formatSize(min)} to ${formatSize(max)}`;
  return measured(sizePattern, parseSize, { wrong: "a size", hint: sizeHint, min, max, range });
};

/** Written as `10s`; milliseconds once parsed. @param min and @param max in milliseconds */
export const duration = (min: number, max: number = 100 * 365 * 86_400_000) => {
  const range = `${formatDuration(min)} to ${formatDuration(max)}`;
  return measured(durationPattern, parseDuration, { wrong: "a duration", hint: durationHint, min, max, range });
};

function measured(
  pattern: string,
  parse: (value: number | string) => number | undefined,
  { wrong, hint, min, max, range }: { wrong: string; hint: string; min: number; max: number; range: string },
) {
  const written = z.union([z.string().meta({ pattern }), z.number()], { error: otherwise(`%v is not ${wrong}`, hint) });
  return written.transform((value, context): number => {
    const amount = parse(value);
    if (amount !== undefined && amount >= min && amount <= max) return amount;
    const message = amount === undefined ? `%v is not ${wrong} (${hint})` : `%v is out of range (${range})`;
    context.addIssue({ code: "custom", message });
    return z.NEVER;
  });
}

/** Name of a source, route, uplink or codec: part of topics, urls, metrics and file names. */
export const entryName = () => checkedText("letters, digits, - _ . and at most 64 of them", nameFault);

export function nameFault(name: string): string | null {
  return /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}_.-]{0,63}$/u.test(name) ? null : "not a name";
}

export const topicFilter = () =>
  checkedText("a topic filter: sensors/+/temp, plant/#", (value) => topicFilterFault(value));

/** A template whose literal parts can be published to. */
export const topicTemplate = () => checkedText("a topic, with {name} where a value goes", templateFault);

export function templateFault(value: string): string | null {
  try {
    return topicNameFault(parseTemplate(value).fill(() => "x") ?? "x");
  } catch {
    return "a brace that is not part of {name}";
  }
}

export const address = (...schemes: [AddressScheme, ...AddressScheme[]]) => urlOf(schemes, 0);

/** @param also what is allowed beside it */
export const addressOr = (also: string, scheme: AddressScheme) => urlOf([scheme], 0, `, or ${also}`);

/** The address of somebody else: port 0, "any free one" to a listener, is nobody's. */
export const remoteAddress = (...schemes: [AddressScheme, ...AddressScheme[]]) => urlOf(schemes, 1);

function urlOf(schemes: readonly AddressScheme[], portMin: 0 | 1, also = "") {
  const allowed = `a url: ${schemes.map((scheme) => `${scheme}://`).join(", ")}${also}`;
  return text(allowed).superRefine((value, context) => {
    const parsed = value === "" ? "" : parseAddress(value, schemes);
    if (parsed === "") return;
    if (typeof parsed === "string") context.addIssue({ code: "custom", message: parsed.replace(/\)$/, `${also})`) });
    else if (parsed.port < portMin)
      context.addIssue({ code: "custom", message: "nobody listens on port 0 (1 to 65535)" });
  });
}

/** A file's path; relative ones are made absolute by load.ts. */
export const filePath = () =>
  checkedText("a path, absolute or from the config file on", (value) =>
    value.includes("\u0000") ? "U+0000 is not possible in a path" : null,
  );

/** A text, `${NAME}`, or `{ file: PATH }`; load.ts puts the file's content in before this schema sees it. */
export const secret = () => {
  const allowed = `a text, \${NAME}, or { file: PATH }`;
  return z
    .union([z.string().min(1, { error: `is empty (${allowed})` }), z.strictObject({ file: z.string().min(1) })], {
      error: notText("%k where a secret is expected", allowed),
    })
    .transform((value): string => (typeof value === "string" ? value : ""));
};

/** Bytes as hex: `7e`, `aa 55`; lower case without spaces once parsed. */
export const hexBytes = (max: number) => {
  const allowed = `1 to ${max} bytes as hex in quotes: "7e", "aa 55"`;
  return checkedText(allowed, (value) => {
    const bytes = value.replaceAll(" ", "");
    return /^([0-9a-f]{2})+$/i.test(bytes) && bytes.length <= 2 * max ? null : "not hex";
  }).transform((value) => value.replaceAll(" ", "").toLowerCase());
};

export const quality = () => oneOfNumbers(0, 1, 2);
