/**
 * The YAML text as a tree that remembers where everything stands. `${NAME}` and aliases are resolved here; everything that a hostile file
 * can make large (nesting, aliases of aliases, sheer number) is bounded here.
 */
import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  Parser,
  parseDocument,
  type YAMLError,
} from "yaml";
import { type Path, type Problem, pathText, sortProblems } from "./problems.ts";

export type Environment = Readonly<Record<string, string | undefined>>;
export type ScalarValue = string | number | boolean | null;

/** A value of the file. `at` and `keyAt` are offsets into the text. */
export class ConfigNode {
  readonly path: Path;
  readonly at: number;
  /** Of the key that leads here; of the value itself in a list. */
  readonly keyAt: number;
  /** As the file writes it, `${NAME}` and quotes included. "" for maps and lists. */
  readonly source: string;
  /** Undefined for maps and lists. */
  scalar: ScalarValue | undefined;
  entries: Map<string, ConfigNode> | undefined;
  readonly items: readonly ConfigNode[] | undefined;
  /** A plain (unquoted) text in which the environment was put in: it may be meant as a number. */
  readonly expanded: boolean;
  /** It has its problem already: what else is wrong with it is not worth saying. */
  broken: boolean;

  constructor(place: NodePlace, content: NodeContent) {
    this.path = place.path;
    this.at = place.at;
    this.keyAt = place.keyAt;
    this.source = content.source ?? "";
    this.scalar = content.scalar;
    this.entries = content.entries;
    this.items = content.items;
    this.expanded = content.expanded ?? false;
    this.broken = content.broken ?? false;
  }

  get(key: string): ConfigNode | undefined {
    return this.entries?.get(key);
  }

  /** The items of the list under `key`; none when it is something else. */
  list(key: string): readonly ConfigNode[] {
    return this.get(key)?.items ?? [];
  }

  /** The text under `key`; undefined when it is something else. */
  text(key: string): string | undefined {
    const value = this.get(key)?.scalar;
    return typeof value === "string" ? value : undefined;
  }

  /** The deepest node on the way along `path`. */
  nearest(path: ReadonlyArray<PropertyKey>): ConfigNode {
    let node: ConfigNode = this;
    for (const part of path) {
      const next = typeof part === "number" ? node.items?.[part] : node.get(String(part));
      if (next === undefined) return node;
      node = next;
    }
    return node;
  }

  /** Every node that `pattern` leads to; `*` is any key or index. */
  match(pattern: readonly string[]): ConfigNode[] {
    let nodes: ConfigNode[] = [this];
    for (const part of pattern) {
      nodes = nodes.flatMap((node) => {
        if (part === "*") return [...(node.entries?.values() ?? node.items ?? [])];
        const next = node.get(part);
        return next === undefined ? [] : [next];
      });
    }
    return nodes;
  }

  /** Another value at the same place: what a file or a reading of `expanded` text gave. */
  replace(scalar: ScalarValue): void {
    this.entries = undefined;
    this.scalar = scalar;
  }

  /** The value as plain data. Maps have no prototype. */
  plain(): unknown {
    if (this.items !== undefined) return this.items.map((item) => item.plain());
    if (this.entries === undefined) return this.scalar;
    const map: Record<string, unknown> = Object.create(null);
    for (const [key, node] of this.entries) map[key] = node.plain();
    return map;
  }
}

interface NodePlace {
  readonly path: Path;
  readonly at: number;
  readonly keyAt: number;
}

interface NodeContent {
  readonly source?: string;
  readonly scalar?: ScalarValue;
  readonly entries?: Map<string, ConfigNode>;
  readonly items?: readonly ConfigNode[];
  readonly expanded?: boolean;
  readonly broken?: boolean;
}

const depthMax = 32;
const nodesMax = 100_000;
const aliasesMax = 1000;
const problemsMax = 500;
const syntaxErrorsMax = 10;

/** Collects problems and knows where offsets are. */
export class Reporter {
  readonly problems: Problem[] = [];
  /** Problems beyond what anybody reads. */
  #dropped = 0;
  readonly #file: string;
  readonly #lines: LineCounter;

  constructor(file: string, lines: LineCounter) {
    this.#file = file;
    this.#lines = lines;
  }

  at(offset: number, path: string, message: string): void {
    if (this.problems.length >= problemsMax) {
      this.#dropped += 1;
      return;
    }
    const { line, col } = this.#lines.linePos(offset);
    // An empty file has no line starts: its one place is 1:1.
    this.problems.push({ file: this.#file, line: Math.max(line, 1), column: Math.max(col, 1), path, message });
  }

  /** About a value; about its key when it has none. */
  node(node: ConfigNode, message: string): void {
    this.at(node.scalar === null ? node.keyAt : node.at, pathText(node.path), message);
  }

  /** About a key of `node` that is not there. */
  missing(node: ConfigNode, key: string, message: string): void {
    this.at(node.at, pathText([...node.path, key]), message);
  }

  /** All of them in the order of the file. */
  sorted(): Problem[] {
    const sorted = sortProblems(this.problems);
    if (this.#dropped === 0) return sorted;
    return [
      ...sorted,
      { file: this.#file, line: 0, column: 0, path: "", message: `and ${this.#dropped} more problems` },
    ];
  }

  /** Another one for the same file, e.g. for warnings. */
  fork(): Reporter {
    return new Reporter(this.#file, this.#lines);
  }
}

/** @returns the root, undefined when the text is not YAML; what is wrong is in `report`. */
export function readDocument(
  text: string,
  file: string,
  env: Environment,
): { root: ConfigNode | undefined; report: Reporter } {
  const lineCounter = new LineCounter();
  const report = new Reporter(file, lineCounter);
  try {
    const deep = tooDeep(text, file);
    if (deep !== undefined) return { root: undefined, report: deep };
    const document = parseDocument(text, {
      lineCounter,
      prettyErrors: false, // they quote the text, which may hold secrets
      uniqueKeys: false, // found below, with their path
      logLevel: "error", // silent would pass over a second document
      schema: "core",
    });
    for (const error of firstOfEachLine([...document.errors, ...document.warnings], lineCounter)) {
      report.at(error.pos[0], "yaml", syntaxMessage(error));
    }
    if (document.errors.length > 0) return { root: undefined, report };
    return { root: new Reader(text, document, env, report).root(), report };
  } catch (error) {
    report.at(0, "yaml", `cannot be parsed: ${error instanceof Error ? error.name : "unknown"}`);
    return { root: undefined, report };
  }
}

/**
 * Says so when the text goes deeper than `depthMax` levels, by the parser's own stack, which grows without recursion. What composes the
 * document does recurse, and a stack that runs out inside of V8's compiler of regular expressions ends the process, not the call.
 */
function tooDeep(text: string, file: string): Reporter | undefined {
  const lineCounter = new LineCounter();
  lineCounter.addNewLine(0);
  const parser = new Parser(lineCounter.addNewLine);
  for (const lexeme of new Lexer().lex(text)) {
    for (const _token of parser.next(lexeme)); // its documents are not wanted here
    if (parser.stack.length <= 2 * depthMax) continue;
    const report = new Reporter(file, lineCounter);
    report.at(parser.offset, "yaml", `nested too deeply (at most ${depthMax} levels)`);
    return report;
  }
  return undefined;
}

/** One mistake makes many errors behind it: one a line, and of those without a name of their own only the first. */
function firstOfEachLine(errors: readonly YAMLError[], lineCounter: LineCounter): YAMLError[] {
  const lines = new Map<number, YAMLError>();
  for (const error of errors) {
    const { line } = lineCounter.linePos(error.pos[0]);
    const first = lines.get(line);
    if (first === undefined || error.pos[0] < first.pos[0]) lines.set(line, error);
  }
  const firsts = [...lines.values()];
  const unnamed = firsts.find((error) => syntaxMessages[error.code] === undefined);
  return firsts
    .filter((error) => error === unnamed || syntaxMessages[error.code] !== undefined)
    .slice(0, syntaxErrorsMax);
}

/** Our own words: the parser's quote the text, which may be a secret. */
const syntaxMessages: Partial<Record<YAMLError["code"], string>> = {
  BAD_ALIAS: "a text that begins with * is an alias (put it into quotes if it is a text)",
  BAD_DQ_ESCAPE: 'an unknown escape inside "..." (write \\\\ for a backslash)',
  BAD_INDENT: "wrong indentation (spaces, the same number for all keys of a map)",
  BAD_SCALAR_START: "a text cannot begin with this character (put it into quotes)",
  BLOCK_AS_IMPLICIT_KEY:
    "a map inside a value (is this line indented too far? a text that holds : and a blank needs quotes)",
  MISSING_CHAR: "a closing quote, bracket or comma is missing",
  MULTILINE_IMPLICIT_KEY: "a key must be on one line with its : (is a : missing?)",
  MULTIPLE_DOCS: "a second document begins here (one per file)",
  TAB_AS_INDENT: "a tab (indent with spaces)",
  TAG_RESOLVE_FAILED: "an unknown tag (a text that begins with ! needs quotes)",
};

const notYaml = "not YAML (a text that begins with { or [, or holds { } [ ] , inside of them, needs quotes)";

const syntaxMessage = (error: YAMLError): string => syntaxMessages[error.code] ?? notYaml;

const variable = /\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{/g;
const expansionHint = `\${NAME} reads the environment; $\${ is a plain \${`;

class Reader {
  readonly #text: string;
  readonly #document: Document.Parsed;
  readonly #env: Environment;
  readonly #report: Reporter;
  #nodes = 0;
  #aliases = 0;

  constructor(text: string, document: Document.Parsed, env: Environment, report: Reporter) {
    this.#text = text;
    this.#document = document;
    this.#env = env;
    this.#report = report;
  }

  root(): ConfigNode {
    const { contents } = this.#document;
    const node = this.#read(contents, { path: [], at: 0, keyAt: 0 });
    if (node.scalar === null) return new ConfigNode(node, { entries: new Map() }); // an empty file
    return node;
  }

  #read(value: unknown, place: NodePlace): ConfigNode {
    this.#nodes += 1;
    if (place.path.length > depthMax || this.#nodes > nodesMax) {
      const what = this.#nodes > nodesMax ? `more than ${nodesMax} values` : `more than ${depthMax} levels`;
      if (this.#nodes <= nodesMax + 1) this.#problem(place, `${what}, aliases counted`);
      return new ConfigNode(place, { scalar: null, broken: true });
    }
    if (isAlias(value)) return this.#readAlias(value, place);
    if (isMap(value)) {
      const start = { ...place, at: value.range?.[0] ?? place.at };
      return new ConfigNode(start, { entries: this.#readEntries(value.items, start) });
    }
    if (isSeq(value)) {
      const start = { ...place, at: value.range?.[0] ?? place.at };
      const items = value.items.map((item, index) => {
        const at = offsetOf(item) ?? start.at;
        return this.#read(item, { path: [...place.path, index], at, keyAt: at });
      });
      return new ConfigNode(start, { items });
    }
    return this.#readScalar(value, place);
  }

  #readAlias(alias: { resolve(document: Document.Parsed): unknown }, place: NodePlace): ConfigNode {
    this.#aliases += 1;
    const target = this.#aliases > aliasesMax ? undefined : alias.resolve(this.#document);
    if (target !== undefined) return this.#read(target, place);
    const why =
      this.#aliases > aliasesMax ? `more than ${aliasesMax} aliases` : "no anchor of that name before this alias";
    if (this.#aliases <= aliasesMax + 1) this.#problem(place, `${why} (put a text that begins with * into quotes)`);
    return new ConfigNode(place, { scalar: null, broken: true });
  }

  #readEntries(pairs: ReadonlyArray<{ key: unknown; value: unknown }>, map: NodePlace): Map<string, ConfigNode> {
    const entries = new Map<string, ConfigNode>();
    for (const { key, value } of pairs) {
      const keyAt = offsetOf(key) ?? map.at;
      const name = isScalar(key) ? key.value : undefined;
      if (typeof name !== "string" && typeof name !== "number" && typeof name !== "boolean") {
        this.#problem({ ...map, at: keyAt }, "a key that is not a text (one word before the :)");
        continue;
      }
      const text = String(name);
      const place = { path: [...map.path, text], at: offsetOf(value) ?? keyAt, keyAt };
      if (text === "__proto__") this.#problem({ ...place, at: keyAt }, "not possible as a key (any other name)");
      else if (entries.has(text)) this.#problem({ ...place, at: keyAt }, "given twice in the same map (each key once)");
      else entries.set(text, this.#read(value, place));
    }
    return entries;
  }

  #readScalar(value: unknown, place: NodePlace): ConfigNode {
    if (!isScalar(value)) return new ConfigNode(place, { scalar: null });
    const raw = value.value;
    const source = value.range ? this.#text.slice(value.range[0], value.range[1]).trim() : "";
    if (typeof raw === "string" && raw.includes("${")) {
      const scalar = this.#expand(raw, place);
      if (scalar === undefined) return new ConfigNode(place, { source, scalar: "", broken: true });
      return new ConfigNode(place, { source, scalar, expanded: value.type === "PLAIN" });
    }
    const known = typeof raw === "string" || typeof raw === "number" || typeof raw === "boolean";
    return new ConfigNode(place, { source, scalar: known ? raw : null });
  }

  /** Puts the environment in; `$${` stands for `${`. Undefined when something of it is wrong. */
  #expand(raw: string, place: NodePlace): string | undefined {
    let wrong = "";
    const text = raw.replace(variable, (match: string, name: string | undefined) => {
      if (match === "$${") return "${";
      const value = name === undefined ? undefined : this.#env[name];
      if (name === undefined) wrong ||= `\${ without NAME} behind it (${expansionHint})`;
      else if (value === undefined)
        wrong ||= `the environment has no ${name} (set it for whoever starts the gateway; ${expansionHint})`;
      return value ?? "";
    });
    if (wrong === "") return text;
    this.#problem(place, wrong);
    return undefined;
  }

  #problem(place: NodePlace, message: string): void {
    this.#report.at(place.at, pathText(place.path) || "yaml", message);
  }
}

function offsetOf(node: unknown): number | undefined {
  const range = (node as { range?: [number, number, number] | null } | null)?.range;
  // An absent value has an empty range, somewhere after its colon.
  return range && range[1] > range[0] ? range[0] : undefined;
}
