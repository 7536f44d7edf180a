import type { Clock } from "../../../../src/base/clock.ts";
import type { Intake, Publisher, ReadingOutcome, Source, Store } from "../../../../src/base/contracts.ts";
import type { Log, LogFields } from "../../../../src/base/log.ts";
import type { Message, MessageProperties } from "../../../../src/base/message.ts";
import { Meter } from "../../../../src/base/meter.ts";
import type { SerialSourceOptions } from "../../../../src/sources/serial/options.ts";
import type { OpenPort, Port, PortEvents } from "../../../../src/sources/serial/port.ts";
import { createSerialSource } from "../../../../src/sources/serial/source.ts";

/** A clock that stands until the test moves it. */
export class FakeClock implements Clock {
  #nowMs = 0;
  #timers: Array<{ atMs: number; callback: () => void }> = [];

  monotonicMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  setTimer(ms: number, callback: () => void): { cancel(): void } {
    const timer = { atMs: this.#nowMs + ms, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  get timers(): number {
    return this.#timers.length;
  }

  /** Time passes while the event loop is busy: no timer gets its turn. */
  stall(ms: number): void {
    this.#nowMs += ms;
  }

  advance(ms: number): void {
    const untilMs = this.#nowMs + ms;
    for (;;) {
      const due = this.#timers.filter(({ atMs }) => atMs <= untilMs).sort((a, b) => a.atMs - b.atMs)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callback();
    }
    this.#nowMs = untilMs;
  }
}

/** One opened fake port. Writes stay in flight until the test finishes them, unless `instant`. */
export class FakePort implements Port {
  readonly events: PortEvents;
  readonly writes: Array<{ text: string; done: (error?: Error) => void }> = [];
  instant = true;
  paused = false;
  closed: "no" | "kept output" | "discarded output" = "no";

  constructor(events: PortEvents) {
    this.events = events;
  }

  get written(): string {
    return this.writes.map(({ text }) => text).join("");
  }

  write(bytes: Uint8Array, done: (error: Error | null | undefined) => void): void {
    this.writes.push({ text: Buffer.from(bytes).toString("latin1"), done });
    if (this.instant) done(null);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  async close(discardOutput: boolean): Promise<void> {
    this.closed = discardOutput ? "discarded output" : "kept output";
  }

  send(text: string): void {
    this.events.data(Buffer.from(text, "latin1"));
  }
}

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly fields: LogFields;
  readonly message: string;
}

function collectingLog(lines: LogLine[]): Log {
  const at = (level: LogLine["level"]) => (fields: LogFields, message: string) => {
    lines.push({ level, fields, message });
  };
  const log: Log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), child: () => log };
  return log;
}

/** Everything around one source, all of it visible to the test. */
export interface Bench {
  /** What the source was made with; tests may replace its `take`. */
  intake: { take: Intake["take"] };
  readonly source: Source;
  readonly clock: FakeClock;
  readonly meter: Meter;
  readonly lines: LogLine[];
  /** Readings handed in, with the callback that settles each. */
  readonly taken: Array<{ text: string; settle: (outcome: ReadingOutcome) => void }>;
  /** Ports opened, the newest last. */
  readonly ports: FakePort[];
  readonly subscriptions: Map<string, Parameters<Publisher["subscribe"]>[1]>;
  /** What the next attempts to open fail with; empty: they succeed. */
  readonly openErrors: Error[];
  port(): FakePort;
  dropped(): Readonly<Record<string, number>>;
  /** @returns the group that its sender has to wait for; 0: none */
  command(text: string, properties?: MessageProperties): number;
  /** Lets what was promised happen: openings, closings. */
  flush(): Promise<void>;
}

export const ackOf = { encode: (value: unknown): Uint8Array => Buffer.from(`ack ${String(value)}`) };

export function makeBench(options: Partial<SerialSourceOptions> = {}, store?: Store): Bench {
  const clock = new FakeClock();
  const meter = new Meter();
  const lines: LogLine[] = [];
  const taken: Bench["taken"] = [];
  const ports: FakePort[] = [];
  const openErrors: Error[] = [];
  const subscriptions: Bench["subscriptions"] = new Map();
  const intake: Intake = {
    take: ({ payload }, settle) => taken.push({ text: Buffer.from(payload).toString("latin1"), settle }),
  };
  const publisher: Publisher = {
    publish: () => ({ accepted: true, group: 0 }),
    whenDurable: (_group, settled) => settled(true),
    subscribe(filter, handler) {
      subscriptions.set(filter, handler);
      return () => subscriptions.delete(filter);
    },
  };
  const openPort: OpenPort = async (_settings, events) => {
    const error = openErrors.shift();
    if (error !== undefined) throw error;
    const port = new FakePort(events);
    ports.push(port);
    return port;
  };
  const source = createSerialSource(
    { name: "boiler", path: "/dev/ttyFake", baudRate: 115_200, framing: { type: "lines" }, ...options },
    { intake, publisher, store, log: collectingLog(lines), clock, meter, openPort },
  );
  return {
    source,
    intake,
    clock,
    meter,
    lines,
    taken,
    ports,
    subscriptions,
    openErrors,
    port: () => ports.at(-1)!,
    dropped: () => source.state().dropped,
    command(text, properties) {
      const payload = Buffer.from(text);
      const message: Message = { topic: "boiler/cmd", payload, qos: 1, retain: false, properties, source: "mqtt:app" };
      let group = 0;
      for (const handler of subscriptions.values()) group = Math.max(group, handler(message)?.group ?? 0);
      return group;
    },
    flush: () => new Promise((resolve) => setImmediate(resolve)),
  };
}
