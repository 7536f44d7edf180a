/** One thing to say about the config file, and where. */
export interface Problem {
  readonly file: string;
  /** From 1; 0 when it concerns the whole file. */
  readonly line: number;
  readonly column: number;
  /** `uplinks[0].url`; `yaml` for what is wrong with the text itself, "" for the whole file. */
  readonly path: string;
  /** What is wrong (what is allowed). Never holds a secret or the value of an environment variable. */
  readonly message: string;
}

export type Path = ReadonlyArray<string | number>;

/** `FILE:LINE:COL: path: what is wrong (what is allowed)` */
export function formatProblem(problem: Problem): string {
  const where = problem.line > 0 ? `${problem.file}:${problem.line}:${problem.column}` : problem.file;
  return problem.path === "" ? `${where}: ${problem.message}` : `${where}: ${problem.path}: ${problem.message}`;
}

/** `["uplinks", 0, "url"]` as `uplinks[0].url`. */
export function pathText(path: Path): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else text += text === "" ? oneLine(part) : `.${oneLine(part)}`;
  }
  return text;
}

/** What comes from the file, fit for one line of a terminal: control characters visible, 60 characters at most. */
export function oneLine(text: string): string {
  const clean = text.slice(0, 200).replace(/[\p{Cc}\u2028\u2029]+/gu, " ");
  return clean.length > 60 ? `${clean.slice(0, 57)}...` : clean;
}

/** In the order of the file, without repetitions. */
export function sortProblems(problems: readonly Problem[]): Problem[] {
  const seen = new Map(problems.map((problem) => [formatProblem(problem), problem]));
  return [...seen.values()].sort((a, b) => a.line - b.line || a.column - b.column);
}

/** The known word nearest to `word`: fewest insertions, deletions, replacements and swaps of neighbours, case aside. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  const wanted = word.slice(0, 100).toLowerCase();
  for (const candidate of known) {
    const distance = editDistance(wanted, candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Optimal string alignment distance. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min(replaced, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, (beforePrevious[j - 2] ?? 0) + 1);
      }
      row.push(cost);
    }
    beforePrevious = previous;
    previous = row;
  }
  return previous[b.length] ?? 0;
}
