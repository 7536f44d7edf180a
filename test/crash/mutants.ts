/**
 * Faults put into the journal on purpose, by name: each must be noticed. A mutant is a text that is replaced in one file; the text must be there
 * exactly once, or the mutant is stale and says so.
 */
export interface Mutant {
  readonly name: string;
  /** Below src/journal. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
  /** Where the crash model's seeds begin that notice it, and how many may be tried; or a test, its file below test. */
  readonly by: readonly [first: number, count: number] | { readonly test: string; readonly only: string };
}

export const mutants: readonly Mutant[] = [
  {
    name: "acknowledged before the sync",
    file: "writer.ts",
    find: "      if (!(await this.#store(group))) break;",
    replace:
      "      this.#options.onDurable(group.number, group.records, 0);\n      if (!(await this.#store(group))) break;",
    by: [1, 20],
  },
  {
    name: "the folder is not synced after a segment is made",
    file: "segmentOutput.ts",
    find: "    if (fresh && !prepared) await this.#options.files.syncDir(",
    replace: "    if (fresh && !prepared && this.#begunMs < 0) await this.#options.files.syncDir(",
    by: [1, 60],
  },
  {
    name: "the folder is not synced after a checkpoint is renamed",
    file: "checkpointer.ts",
    find: "      await files.syncDir(dir); // or a power cut may undo the rename, but not the removal of what it replaces\n",
    replace: "",
    by: [23, 60],
  },
  {
    name: "the checkpoint is not synced before it is renamed",
    file: "checkpointer.ts",
    find: "      await capture.file.datasync();\n",
    replace: "",
    by: [1, 100],
  },
  {
    name: "checksums start from the same number in every file",
    file: "format.ts",
    find: "  return crc32(generation === 0 ? seed.subarray(0, 24) : seed);",
    replace: "  return seed.length === 0 ? crc32(seed) : 7;",
    by: { test: "unit/journal/damage.test.ts", only: "recycled" },
  },
  {
    name: "prevEnd is ignored",
    file: "recovery.ts",
    find: "      limit = Math.min(limit, file.header.prevEnd);",
    replace: "",
    by: [1, 60],
  },
  {
    name: "a segment is freed before what emptied it is durable",
    file: "freeing.ts",
    find: "} else if (segment.freeAfterGroup <= writer.durableGroup && !this.#keepsCut(segment)) {",
    replace: "} else if (!this.#keepsCut(segment)) {",
    by: { test: "unit/journal/freeing.test.ts", only: "freeing" },
  },
  {
    name: "a segment is freed though the older checkpoint needs it",
    file: "checkpointer.ts",
    find: "    return this.#kept.length < 2 ? 0 : this.#kept[0]!.mark;",
    replace: "    return this.#kept.at(-1)?.mark ?? 0;",
    by: [247, 60],
  },
  {
    name: "what was recovered is not synced before it is told",
    file: "open.ts",
    find: "    await settleTail(options, folder, found.unproven);",
    replace: "    if (folder.epoch < 0) await settleTail(options, folder, found.unproven);",
    by: [32, 60],
  },
  {
    name: "a new segment is begun before lane states of the old one are synced",
    file: "writer.ts",
    find: "    if (this.output.isOpen && this.unsyncedSinceMs !== undefined) {",
    replace: "    if (this.output.isOpen && this.unsyncedSinceMs !== undefined && this.tail.end < 0) {",
    by: [31, 60],
  },
  {
    name: "a checkpoint's footer is written before its mark is durable",
    file: "checkpointer.ts",
    find: "      await this.#durable(capture, writer.openGroup);\n",
    replace: "",
    by: [8, 60],
  },
  {
    name: "a checkpoint encoded before a roll is written after it",
    file: "checkpointer.ts",
    find: "    if (this.#capture === undefined) return;\n    this.#capture.aborted = true;\n",
    replace: "    if (this.#capture === undefined) return;\n",
    by: [335, 60],
  },
  {
    name: "a failed write is tried again on the same descriptor",
    file: "writer.ts",
    find: "        await this.output.leave();\n        const noSpace = isNoSpace(error);",
    replace:
      "        const noSpace = isNoSpace(error);\n        if (!noSpace && failures++ === 0) continue;\n        await this.output.leave();",
    by: [137, 60],
  },
  {
    name: "the group's checksum is not checked",
    file: "lastGroup.ts",
    find: "      if (difference !== 0 && !isOneBit(last, start, at, difference) && !isWritten(last, start, next)) break;\n",
    replace: "",
    by: [1, 100],
  },
  {
    name: "what is done between is forgotten at a rewind",
    file: "lane.ts",
    find: "    this.skips = this.intervals();",
    replace: "    this.skips = [];",
    by: [1, 40],
  },
  {
    name: "a done interval that the cursor stands in is written as it was",
    file: "lane.ts",
    find: "let start = Math.max(from, this.cursor + 1);",
    replace: "let start = from;",
    by: { test: "unit/journal/laneSkips.test.ts", only: "stay apart" },
  },
  {
    name: "numbers are given again after a recovery",
    file: "recovery.ts",
    find: "      account.nextSeq = Math.max(account.nextSeq, seq + 1);",
    replace: "",
    by: [1, 100],
  },
  {
    name: "the store clock is the wall clock",
    file: "storeClock.ts",
    find: "    this.#baseMs = last.storeMs + (differenceMs > 0 && last.wallMs > 0 && believes(differenceMs) ? differenceMs : 0);",
    replace: "    this.#baseMs = last.storeMs + differenceMs + (believes(0) ? 0 : 1);",
    by: [1, 40],
  },
  {
    name: "a commit that throws is not undone",
    file: "store.ts",
    find: "      this.#txn.undo();",
    replace: "",
    by: [1, 20],
  },
  {
    name: "a commit that throws leaves its bytes",
    file: "store.ts",
    find: "      writer.cut(savepoint);",
    replace: "",
    by: [1, 40],
  },
  {
    name: "a dropped queue's references stay counted",
    file: "state.ts",
    find: "    this.countQueue(queue, -1);",
    replace: "",
    by: [1, 40],
  },
  {
    name: "marks run ahead of what was settled",
    file: "lane.ts",
    find: "    return oldest.done ? this.cursor : oldest.value - 1;",
    replace: "    return oldest.done ? this.cursor : this.cursor - 1;",
    by: [1, 40],
  },
  {
    name: "what was handed out ahead of a backlog counts as done",
    file: "lane.ts",
    find: "for (; !one.done && one.value.position <= to;",
    replace: "for (; !one.done && one.value.position < 0;",
    by: [7, 60],
  },
  {
    name: "a backlog is read on into what is fresh",
    file: "laneReader.ts",
    find: " || position >= stream.to",
    replace: "",
    by: [223, 60],
  },
  {
    name: "what of a segment is in flight ahead of the backlog is dropped with it",
    file: "uplinkQueue.ts",
    find: " || lane.hasEarlyBetween(part.first, part.last)",
    replace: "",
    by: { test: "unit/journal/liveShare.test.ts", only: "takes whole segments" },
  },
  {
    name: "pages that a failed sync left behind are not written again",
    file: "settleTail.ts",
    find: "        if (again) await writeAgain(file, unproven);\n",
    replace: "",
    by: { test: "unit/journal/startFaults.test.ts", only: "failed sync" },
  },
  {
    name: "the old segments go before the merged one's name is on the disk",
    file: "mergedFile.ts",
    find: "    await this.#files.syncDir(this.#dir); // the old ones go only when this cannot be undone any more\n",
    replace: "",
    by: [75, 60],
  },
  {
    name: "segments that a merged one replaces are not recognised",
    file: "segmentFiles.ts",
    find: "    if (by) replaced.push(file.name);",
    replace: "    if (by && generation < 0) replaced.push(file.name);",
    by: [22, 60],
  },
  {
    name: "a spare's new name is not on the disk before its first byte",
    file: "segmentOutput.ts",
    find: "    await files.syncDir(dir); // before its first byte",
    replace: "    // before its first byte",
    by: [1, 100],
  },
  {
    name: "a spare is ready before it is zeroed",
    file: "spares.ts",
    find: "      await file.truncate(0); // what the kernel caches of it, in large folios, goes with its bytes\n",
    replace: "      (spare as { bytes: number }).bytes = 1;\n",
    by: { test: "unit/journal/spares.test.ts", only: "used again" },
  },
  {
    name: "a part reaches beyond the end of a rolled segment",
    file: "moveBytes.ts",
    find: "part.last = Math.min(part.last, segment.end - 1);",
    replace: "part.last += 0 * segment.end;",
    by: { test: "unit/journal/mends.test.ts", only: "a failed sync moves a message on" },
  },
  {
    name: "a part reaches beyond what a commit that threw left",
    file: "txn.ts",
    find: "        if (part !== undefined) part.last = position;\n",
    replace: "        void part;\n",
    by: { test: "unit/journal/mends.test.ts", only: "its part reaches no further" },
  },
  {
    name: "lane states' readers pass what is not durable",
    file: "laneReader.ts",
    find: "Math.min(segment.parts.get(stream.lane.id)!.first, durablePosition())",
    replace: "segment.parts.get(stream.lane.id)!.first + 0 * durablePosition()",
    by: { test: "unit/journal/mends.test.ts", only: "stats asked for within" },
  },
  {
    name: "a torn group does not take the empty one along",
    file: "lastGroup.ts",
    find: "      if (start > accepted && !isWritten(last, accepted, start)) break;\n",
    replace: "",
    by: { test: "unit/journal/mends.test.ts", only: "sector of the first missing" },
  },
  {
    name: "numbers are given again after the last group rotted",
    file: "recovery.ts",
    find: "    if (this.#corrupt > 0 || this.#torn > 0) this.#leaveSeqGap();",
    replace: "    if (this.#corrupt > 0) this.#leaveSeqGap();",
    by: { test: "unit/journal/mends.test.ts", only: "none is given again" },
  },
  {
    name: "one flipped bit takes the newest group along",
    file: "lastGroup.ts",
    find: "  if (flipped === undefined) return false;",
    replace: "  if (flipped === undefined || start >= 0) return false;",
    by: { test: "unit/journal/lastGroup.test.ts", only: "sectors of zeros costs" },
  },
  {
    name: "a read that fails once counts as damage",
    file: "readTwice.ts",
    find: 'if (errnoOf(error) !== "EIO") throw error;',
    replace: "throw error;",
    by: { test: "unit/journal/startFaults.test.ts", only: "fails once" },
  },
  {
    name: "the clock is not journalled while nothing happens",
    file: "changedStates.ts",
    find: "    else if (nowMs - this.#lastWriteMs >= clockEveryMs) writer.schedule(true);\n",
    replace: "",
    by: { test: "unit/journal/startFaults.test.ts", only: "store clock after idle" },
  },
];
