/**
 * Topic templates: `plant/boiler/{kind}`, `gw/{gateway}/{topic}`, `cmd/{rest}`, `meters/{1}/temp`. Parsed once, filled per message.
 */
export interface Template {
  readonly text: string;
  /** Names used, in order of appearance. */
  readonly names: readonly string[];
  /**
   * Puts the values in. `undefined` when a name has no value. Values are not checked here: whoever knows whether one may hold `/`
   * passes it through `topicLevel` first.
   */
  fill(lookup: (name: string) => string | undefined): string | undefined;
}

const placeholder = /\{([A-Za-z0-9_.-]+)\}/g;

/** @throws RangeError for a brace that is not part of `{name}`. */
export function parseTemplate(text: string): Template {
  const literals: string[] = [];
  const names: string[] = [];
  let from = 0;
  for (const match of text.matchAll(placeholder)) {
    literals.push(text.slice(from, match.index));
    names.push(match[1] ?? "");
    from = match.index + match[0].length;
  }
  literals.push(text.slice(from));
  if (literals.some((part) => /[{}]/.test(part))) throw new RangeError(`"${text}": a brace that is not part of {name}`);
  return {
    text,
    names,
    fill(lookup) {
      let filled = literals[0] ?? "";
      for (let at = 0; at < names.length; at += 1) {
        const value = lookup(names[at] ?? "");
        if (value === undefined) return undefined;
        filled += value + (literals[at + 1] ?? "");
      }
      return filled;
    },
  };
}

/**
 * A device's value as one topic level: what could change the topic's structure or be refused by a broker (`/ + #`, control
 * characters) becomes `_`, an empty value too. Bounded to 128 characters.
 */
export function topicLevel(value: unknown): string {
  const text = String(value);
  const safe = text.slice(0, 128).replace(/[/+#\p{Cc}\p{Cs}\u{10000}-\u{10ffff}\ufffe\uffff]/gu, "_");
  return safe === "" ? "_" : safe;
}
