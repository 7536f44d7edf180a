/** A store of which little is live, spread over many small segments: what merging is for. */
import type { QueuedMessage, Store } from "../../../src/base/contracts.ts";
import { segmentNamePattern } from "../../../src/journal/format.ts";
import type { Tuning } from "../../../src/journal/options.ts";
import type { FaultyFiles } from "../../helpers/faultyFiles.ts";
import { durable, generous, message, open, TestClock, taker, textOf, turn, until } from "./support.ts";

export const segmentBytes = 3000;
export const merging: Partial<Tuning> = { checkpointBytes: 1, checkpointEveryMs: 1000, mergeRate: 1e12 };
export const notMerging: Partial<Tuning> = { ...merging, mergeBytes: 0 };

export const openOn = (files: FaultyFiles, clock: TestClock, tuning: Partial<Tuning>): Promise<Store> =>
  open(files.mount(), clock, { segmentBytes, tuning });

/** Everything that must be there whatever becomes of the files. */
export interface Live {
  lane: string[];
  high: string[];
  /** Ordinal and text. */
  queue: Array<[number, string]>;
  nextOrdinal: number;
  retained: Record<string, string>;
  map: Record<string, string>;
}

export const mergedPaths = (files: FaultyFiles): string[] =>
  files.paths().filter((path) => segmentNamePattern.exec(path.slice(6))?.[2] !== undefined);

export const segmentPaths = (files: FaultyFiles): string[] => files.paths().filter((path) => path.includes("/seg-"));

/** Seconds pass, with time for what they set off. */
export async function seconds(clock: TestClock, count: number, files: FaultyFiles): Promise<void> {
  for (let second = 0; second < count && !files.stopped; second += 1) {
    clock.advance(1000);
    for (let turns = 0; turns < 40 && !files.stopped; turns += 1) await turn();
  }
}

const nothing = (): Live => ({ lane: [], high: [], queue: [], nextOrdinal: 1, retained: {}, map: {} });

/** @returns what is live besides what was: of each 12 messages of a lane one, some references, the last retained and put values */
export async function fill(store: Store, count = 120, prefix = "m", live = nothing()): Promise<Live> {
  const queue = store.uplink("cloud", generous);
  const [low, high] = [queue.lane(2), queue.lane(8)];
  const rule = store.rule("cloud", "{}");
  const done = new Set<string>();
  for (let index = 0; index < count; index += 1) {
    const text = `${prefix}${index}-${"x".repeat(index % 40 === 7 ? 1500 : 60)}`;
    const { value, group } = store.commit((txn) => {
      const lane = index % 4 === 3 ? high : low;
      const position = txn.message(message(text), [taker(lane, rule)]);
      if (index % 12 === 5) (lane === high ? live.high : live.lane).push(text);
      else done.add(text);
      if (index % 5 === 0) {
        const ordinal = txn.reference("alice", position, index % 3);
        live.nextOrdinal = ordinal + 1;
        if (index % 20 === 0) live.queue.push([ordinal, text]);
        return { position, ordinal: index % 20 === 0 ? 0 : ordinal };
      }
      if (index % 6 === 1) {
        txn.retain(`r/${index % 18}`, position);
        live.retained[`r/${index % 18}`] = text;
      }
      if (index % 30 === 3 && index + 26 < count) txn.retain("gone", position);
      if (index % 30 === 4 && index + 25 < count) txn.put("m", `gone${index + 25}`, Buffer.from("gone"));
      txn.put("m", `k${index % 25}`, Buffer.from(text.slice(0, 10)));
      live.map[`k${index % 25}`] = text.slice(0, 10);
      return { position, ordinal: 0 };
    });
    if (index % 30 === 29) {
      store.commit((txn) => {
        txn.delete("m", `gone${index}`);
        txn.delete("m", `k${index % 25}`);
        txn.unretain("gone");
      });
      delete live.map[`k${index % 25}`];
    }
    await durable(store, group);
    if (value.ordinal > 0) store.commit((txn) => txn.release("alice", value.ordinal));
  }
  const out: QueuedMessage[] = [];
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
    return out.length === queue.stats().messages;
  }, "all read");
  for (const next of out) if (done.has(textOf(next))) queue.settle(next);
  queue.rewind();
  await durable(store, store.commit((txn) => txn.put("m", "end", Buffer.from("end"))).group);
  live.map["end"] = "end";
  live.nextOrdinal = store.references("alice")!.nextOrdinal;
  return live;
}

/** What the store has, read through all its readers. The lanes are rewound. */
export async function look(store: Store): Promise<Live> {
  const queue = store.uplink("cloud", generous);
  const [low, high] = [queue.lane(2), queue.lane(8)];
  const out: QueuedMessage[] = [];
  await until(() => {
    for (let next = queue.next(); next !== undefined; next = queue.next()) out.push(next);
    return queue.stats().messages === out.length;
  }, "all that waits is read");
  queue.rewind();
  const references = store.references("alice");
  const read = (await references?.read(0, { messages: 1000, bytes: 1e9 })) ?? [];
  const retained: Record<string, string> = {};
  for (const [topic, position] of store.retained()) {
    const stored = await store.read(position);
    if (stored !== undefined) retained[topic] = textOf(stored);
  }
  const texts = (lane: number): string[] => out.filter((one) => one.lane === lane).map(textOf);
  return {
    lane: texts(low),
    high: texts(high),
    queue: read.map((one) => [one.ordinal, textOf(one)]),
    nextOrdinal: references?.nextOrdinal ?? 1,
    retained,
    map: Object.fromEntries([...store.entries("m")].map(([key, value]) => [key, Buffer.from(value).toString()])),
  };
}

/** Opens what is there, without merging, and looks. */
export async function inspect(files: FaultyFiles): Promise<Live & { corrupt: number }> {
  const store = await openOn(files, new TestClock(), notMerging);
  const live = await look(store);
  expectNothingDropped(store);
  const corrupt = store.stats().recovery.corruptRecords;
  await store.close();
  return { ...live, corrupt };
}

function expectNothingDropped(store: Store): void {
  const { dropped } = store.uplink("cloud", generous).stats();
  if (Object.keys(dropped).some((reason) => reason !== "corrupt")) throw new Error(JSON.stringify(dropped));
}
