/** What the store holds against what the model says: while it runs (counts), and after each start (everything). */
import { expect } from "chai";
import type { QueuedMessage } from "../../src/base/contracts.ts";
import { textOf, turn } from "../unit/journal/support.ts";
import type { CrashModel } from "./journalModel.ts";
import { isWhole, sumOf, type UplinkPlan, uplinkPlans } from "./laneBook.ts";
import { Ledger } from "./ledger.ts";
import { queueNames } from "./workload.ts";

/** One thing that is not as it should be. Things of one record have the same `unit`. */
export interface Difference {
  readonly unit: string;
  readonly what: string;
}

/** Without the x's of a text. */
export const brief = (text: string | undefined): string => String(text).replace(/-x*$/, "");

/** What RAM holds is what was committed; every message that waits no longer was settled or counted as dropped. */
export function checkCounts(model: CrashModel): void {
  const { store, live, counts, rotten } = model;
  for (const [name, queue] of model.queues) {
    const { messages, dropped } = queue.stats();
    const { waiting, dropped: before } = counts.get(name)!;
    expect(messages, `waiting in ${name}`).to.equal(waiting - (sumOf(dropped) - before));
  }
  if (rotten) return;
  for (const name of queueNames) {
    const queue = store.references(name);
    const book = live.queues.get(name);
    expect([queue?.size, queue?.nextOrdinal], name).to.deep.equal([book?.waiting.size, book?.next]);
  }
  const retained = new Map(store.retained());
  expect(retained.size, "retained values").to.equal(live.retained.size);
  for (const [topic, { position }] of live.retained) expect(retained.get(topic), topic).to.equal(position);
  expect(mapOf(model).size, "keys").to.equal(live.map.size);
}

const maps = ["model", "twin", "small", "bulk"];

function mapOf({ store }: CrashModel): Map<string, string> {
  const found = new Map<string, string>();
  for (const map of maps)
    for (const [key, value] of store.entries(map)) found.set(`${map}/${key}`, Buffer.from(value).toString());
  return found;
}

/** Everything, after a start; then the model goes on from what was found. @returns what differs; throws at once unless bits were flipped */
export async function compare(model: CrashModel): Promise<readonly Difference[]> {
  const { store, reach } = model;
  const { recovery } = store.stats();
  if (recovery.tornBytes > 0) reach.count("torn groups cut");
  if (!model.rotten)
    expect(recovery.corruptRecords, "nothing rotted but a checkpoint").to.equal(model.rottenCheckpoints);
  // A bit that rotted in a prepared segment lies behind what was written there.
  if (model.closed && !model.rotten)
    expect(recovery, "after a clean close").to.deep.include({ clean: true, tornBytes: 0 });
  const differences = adoptEnd(model);
  const journalledMs = Math.max(0, ...model.commits.map(({ clockMs }) => clockMs));
  expect(store.nowMs(), "store clock").to.be.at.least(journalledMs);
  model.commits = [];
  compareMap(model, differences);
  await compareReferences(model, differences);
  await compareRetained(model, differences);
  await compareLanes(model, differences);
  if (differences.length > 0 && !model.rotten)
    throw new Error(`not as it was:\n  ${differences.map(({ unit, what }) => `${brief(unit)}: ${what}`).join("\n  ")}`);
  if (model.rotten) await adopt(model);
  model.base = model.live.copy();
  model.beginCounts();
  return differences;
}

/** Finds up to where the store recovered; what came after never was. */
function adoptEnd(model: CrashModel): Difference[] {
  const numberIn = (map: string): number => Number(Buffer.from(model.store.get(map, "n") ?? []).toString() || 0);
  const found = Math.max(numberIn("model"), numberIn("twin"));
  const differences: Difference[] = [];
  const last = model.commits.find(({ number }) => number === found);
  const after = model.commits.find(({ number }) => number === found + 1);
  if (found < model.acknowledged) {
    const lost = model.commits.filter(({ number }) => number > found && number <= model.acknowledged);
    // With a bit flipped in it, a last group that nothing after it proves is lost as a whole.
    const unproven = new Set(lost.map(({ group }) => group)).size === 1;
    differences.push({
      unit: unproven ? "last group" : "groups",
      what: `${model.acknowledged} was acknowledged, ${found} is there`,
    });
  }
  if (after !== undefined && after.group === last?.group)
    differences.push({ unit: "atomicity", what: `${found} is there without ${found + 1} of the same group` });
  if (found > model.acknowledged) model.reach.count("whole unsynced groups kept");
  if (found < model.number) model.reach.count("commits lost that nobody was told of", model.number - found);
  model.commits = model.commits.filter(({ number }) => number <= found);
  model.live = model.base.copy();
  for (const { changes } of model.commits) model.live.apply(changes);
  model.lanes.forgetAfter(found);
  model.number = found;
  model.acknowledged = found;
  return differences;
}

function compareMap(model: CrashModel, differences: Difference[]): void {
  const found = mapOf(model);
  for (const key of new Set([...found.keys(), ...model.live.map.keys()])) {
    const [is, should] = [found.get(key), model.live.map.get(key)];
    if (is !== should) differences.push({ unit: key, what: `${is}, should be ${should}` });
  }
}

async function compareReferences(model: CrashModel, differences: Difference[]): Promise<void> {
  for (const name of queueNames) {
    const queue = model.store.references(name);
    const book = model.live.queues.get(name);
    const batch = (await queue?.read(0, { messages: 10_000, bytes: 1e9 })) ?? [];
    const found = new Map(batch.map((one) => [one.ordinal, one]));
    expect([...found.keys()], `${name} in order`).to.deep.equal([...found.keys()].sort((a, b) => a - b));
    for (const [ordinal, { text, meta }] of book?.waiting ?? []) {
      const one = found.get(ordinal);
      if (one === undefined) differences.push({ unit: text, what: `lost from ${name}: ${ordinal}` });
      else if (textOf(one) !== text || one.meta !== meta || !isWhole(one.message))
        differences.push({ unit: text, what: `${name}: ${ordinal} is ${textOf(one)}` });
    }
    for (const [ordinal, one] of found)
      if (book?.waiting.has(ordinal) !== true)
        differences.push({ unit: `${name} ${ordinal}`, what: `${textOf(one)} waits again` });
    if (book !== undefined && queue?.nextOrdinal !== book.next)
      differences.push({
        unit: book.waiting.get(queue?.nextOrdinal ?? 1)?.text ?? `${name}, next`,
        what: `${queue?.nextOrdinal}, should be ${book.next}`,
      });
  }
}

async function compareRetained(model: CrashModel, differences: Difference[]): Promise<void> {
  const found = new Map<string, string>();
  for (const [topic, position] of model.store.retained()) {
    const stored = await model.store.read(position);
    found.set(topic, stored === undefined || !isWhole(stored.message) ? "gone" : textOf(stored));
  }
  for (const topic of new Set([...found.keys(), ...model.live.retained.keys()])) {
    const [is, should] = [found.get(topic), model.live.retained.get(topic)?.text];
    if (is !== should) differences.push({ unit: should ?? topic, what: `retained ${topic} is ${is}, not ${should}` });
  }
}

/** Everything not settled comes out once, in order; what was settled may come out again, but only where it belongs. */
async function compareLanes(model: CrashModel, differences: Difference[]): Promise<void> {
  for (const plan of uplinkPlans) {
    const queue = model.queues.get(plan.name)!;
    const before = queue.stats();
    const out: QueuedMessage[] = [];
    // With more to come a read may be under way, through many segments.
    for (let idle = 0; idle < (queue.stats().messages === out.length ? 3 : 600); ) {
      const next = queue.next();
      if (next === undefined) {
        idle += 1;
        await turn();
      } else {
        idle = 0;
        out.push(next);
        const definition = model.store.ruleDefinition(next.rule);
        model.lanes.handOut(plan.name, next, definition, model.store.nowMs(), model.rotten);
      }
    }
    const { messages, bytes, dropped } = queue.stats();
    expect(messages, `${plan.name} counts what waits`).to.equal(out.length);
    const taken = out.map((one) => model.lanes.find(plan.name, textOf(one))!);
    expect(bytes, `bytes of ${plan.name}`).to.equal(taken.reduce((sum, entry) => sum + entry.bytes, 0));
    expect(sumOf(dropped) - sumOf(before.dropped), `dropped of ${plan.name}`).to.equal(before.messages - messages);
    expect(out.every(({ priority }, index) => index === 0 || priority <= out[index - 1]!.priority)).to.equal(true);
    model.noteDrops();
    for (const priority of plan.priorities) compareLane(model, plan, priority, out, differences);
    queue.rewind();
    model.lanes.rewound(plan.name);
  }
}

function compareLane(
  model: CrashModel,
  plan: UplinkPlan,
  priority: number,
  out: readonly QueuedMessage[],
  differences: Difference[],
): void {
  const found = new Set(out.filter((one) => one.priority === priority).map(textOf));
  let mayBeDropped = model.lanes.dropped.get(plan.name) ?? 0;
  for (const entry of model.lanes.missing(plan, priority, found)) {
    if (mayBeDropped > 0 && model.lanes.wasDropped(entry, found)) mayBeDropped -= 1;
    else {
      const expires =
        entry.expiresAtMs > 2 ** 40 * 2 ? "" : `, expires in ${entry.expiresAtMs - model.store.nowMs()} ms`;
      differences.push({ unit: entry.text, what: `lost from ${plan.name}, priority ${priority}${expires}` });
    }
    if (model.rotten) entry.lost = true;
  }
}

/** After damage the model goes on from what is there. */
async function adopt(model: CrashModel): Promise<void> {
  const found = new Ledger();
  for (const [key, value] of mapOf(model)) found.map.set(key, value);
  for (const [topic, position] of model.store.retained()) {
    const stored = await model.store.read(position);
    found.retained.set(topic, { text: stored === undefined ? "gone" : textOf(stored), position });
  }
  for (const name of queueNames) {
    const queue = model.store.references(name);
    if (queue === undefined) continue;
    const batch = await queue.read(0, { messages: 10_000, bytes: 1e9 });
    const waiting = new Map(batch.map((one) => [one.ordinal, { ...one, text: textOf(one) }]));
    found.queues.set(name, { next: queue.nextOrdinal, waiting });
  }
  model.live = found;
}
