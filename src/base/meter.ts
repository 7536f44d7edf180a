/**
 * Counters, gauges and histograms, written as Prometheus text (format 0.0.4). A counter on the hot path is a field increment; everything
 * else happens when somebody asks. The label sets are made by us, never by what a client sends, and are bounded all the same.
 */
export interface Counter {
  value: number;
}

export interface Histogram {
  observe(value: number): void;
  readonly count: number;
  readonly sum: number;
}

type Labels = Readonly<Record<string, string>>;

interface Family {
  kind: "counter" | "gauge" | "histogram";
  help: string;
  series: Map<string, { text: string; read: () => string[] }>;
}

/** Label sets of one name; beyond it a new set shares one series labelled `overflow="true"`. */
const seriesMax = 1000;

const escapeLabel = (value: string): string => value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`));

function labelText(labels: Labels): string {
  const names = Object.keys(labels).sort();
  if (names.length === 0) return "";
  return `{${names.map((name) => `${name}="${escapeLabel(labels[name] ?? "")}"`).join(",")}}`;
}

/** Prometheus spells infinity its own way. */
const numberText = (value: number): string =>
  value === Number.POSITIVE_INFINITY ? "+Inf" : value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);

export class Meter {
  readonly #families = new Map<string, Family>();
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, FixedHistogram>();

  /** The counter of this name and label set; the same object each time. Keep it, and add to `value`. */
  counter(name: string, help: string, labels: Labels = {}): Counter {
    const text = this.#seriesText(name, "counter", help, labels);
    const key = name + text;
    let counter = this.#counters.get(key);
    if (counter === undefined) {
      const made: Counter = { value: 0 };
      counter = made;
      this.#counters.set(key, made);
      this.#family(name, "counter", help).series.set(text, { text, read: () => [`${name}${text} ${made.value}`] });
    }
    return counter;
  }

  /** A value that is read when somebody asks. The last registration of a name and label set wins. */
  gauge(name: string, help: string, read: () => number, labels: Labels = {}): void {
    const text = this.#seriesText(name, "gauge", help, labels);
    this.#family(name, "gauge", help).series.set(text, { text, read: () => [`${name}${text} ${numberText(read())}`] });
  }

  /** Takes a gauge away, e.g. of an uplink that a reload removed. */
  dropGauge(name: string, labels: Labels = {}): void {
    this.#families.get(name)?.series.delete(labelText(labels));
  }

  /** @param bounds upper bounds, rising; +Inf is added. Units are those of the name's suffix (`_seconds`, `_bytes`). */
  histogram(name: string, help: string, bounds: readonly number[], labels: Labels = {}): Histogram {
    const text = this.#seriesText(name, "histogram", help, labels);
    const key = name + text;
    let histogram = this.#histograms.get(key);
    if (histogram === undefined) {
      const made = new FixedHistogram(bounds);
      histogram = made;
      this.#histograms.set(key, made);
      this.#family(name, "histogram", help).series.set(text, { text, read: () => made.lines(name, text) });
    }
    return histogram;
  }

  /** Everything as Prometheus text. */
  expose(): string {
    const lines: string[] = [];
    for (const [name, family] of [...this.#families].sort(([a], [b]) => (a < b ? -1 : 1))) {
      lines.push(`# HELP ${name} ${family.help}`, `# TYPE ${name} ${family.kind}`);
      for (const series of family.series.values()) lines.push(...series.read());
    }
    return `${lines.join("\n")}\n`;
  }

  #family(name: string, kind: Family["kind"], help: string): Family {
    let family = this.#families.get(name);
    if (family === undefined) {
      family = { kind, help, series: new Map() };
      this.#families.set(name, family);
    }
    return family;
  }

  #seriesText(name: string, kind: Family["kind"], help: string, labels: Labels): string {
    const family = this.#family(name, kind, help);
    const text = labelText(labels);
    return family.series.size < seriesMax || family.series.has(text) ? text : '{overflow="true"}';
  }
}

class FixedHistogram implements Histogram {
  readonly #bounds: readonly number[];
  readonly #buckets: number[];
  count = 0;
  sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#buckets = new Array(bounds.length + 1).fill(0);
  }

  observe(value: number): void {
    let at = 0;
    while (at < this.#bounds.length && value > (this.#bounds[at] ?? 0)) at += 1;
    this.#buckets[at] = (this.#buckets[at] ?? 0) + 1;
    this.count += 1;
    this.sum += value;
  }

  lines(name: string, text: string): string[] {
    const open = text === "" ? "{" : `${text.slice(0, -1)},`;
    const lines: string[] = [];
    let running = 0;
    this.#bounds.forEach((bound, at) => {
      running += this.#buckets[at] ?? 0;
      lines.push(`${name}_bucket${open}le="${bound}"} ${running}`);
    });
    lines.push(
      `${name}_bucket${open}le="+Inf"} ${this.count}`,
      `${name}_sum${text} ${this.sum}`,
      `${name}_count${text} ${this.count}`,
    );
    return lines;
  }
}
