/**
 * Dead letters to browse: a read model on NeDB. The journal is the truth; this is brought up to it before each answer, and made anew from it whenever its
 * file is lost, damaged or another store's. It is in RAM only while somebody browses; that its file fails is a warning, and then it is kept in memory.
 */
import { join } from "node:path";
import type NeDB from "nedb-promises";
import type { Clock, Timer } from "../base/clock.ts";
import { type LetterDesk, type LetterFilter, type LetterSummary, letterMatches } from "../base/deadLetters.ts";
import { messageOf, TidegateError } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { topicMatches } from "../base/topic.ts";
import { clearFile, readFileOf } from "./catalogueFile.ts";
import { documentOf, type LetterDocument, type StoreDocument, shortened, summaryOf } from "./letterDocument.ts";

export interface CatalogueOptions {
  /** The data folder. */
  readonly dir: string;
  /** Of the store. */
  readonly epoch: number;
}

export interface CatalogueDeps {
  readonly letters: LetterDesk;
  readonly clock: Clock;
  readonly log: Log;
}

export interface LetterPage {
  /** Newest first. */
  readonly letters: LetterSummary[];
  /** Of those in the catalogue, how many match. */
  readonly matching: number;
  /** For the next page: what to give as `before`. Undefined: there is none. */
  readonly next: number | undefined;
  /** Letters that are kept, and how many of them, the newest, can be browsed. */
  readonly total: number;
  readonly catalogued: number;
}

/** Documents at most: NeDB keeps all of them in RAM. */
export const catalogueMax = 10_000;
/** It leaves the RAM when nobody has asked for so long. */
const idleMs = 5 * 60_000;
/** Questions that wait, at most. */
const askingMax = 64;
const batch = { messages: 64, bytes: 256 * 1024 };
/** Documents that are looked at, or removed, in one turn of the event loop. */
const sliceMax = 200;
/** Lines that its file may have beyond twice its documents before it is made anew. */
const slackLines = 2000;

type Db = NeDB<LetterDocument | StoreDocument>;

interface Opened {
  readonly db: Db;
  readonly inMemory: boolean;
  readonly ids: Set<number>;
  /** Lines that its file has. */
  lines: number;
}

export class Catalogue {
  readonly #options: CatalogueOptions;
  readonly #deps: CatalogueDeps;
  readonly #file: string;
  #opened: Promise<Opened> | undefined;
  #asking = 0;
  /** What changes it or goes through it, one after the other. */
  #working: Promise<unknown> = Promise.resolve();
  #idle: Timer | undefined;
  #closed = false;

  constructor(options: CatalogueOptions, deps: CatalogueDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#file = join(options.dir, "catalogue", "dead-letters.db");
  }

  /**
   * One question after the other: many at once would be many slices in a turn of the event loop.
   * @param before ids below this one only
   * @throws TidegateError TG_STORE_READ when the disk cannot be asked now, or too many ask already
   */
  async find(filter: LetterFilter, page: { limit: number; before?: number | undefined }): Promise<LetterPage> {
    const { messages: total } = this.#deps.letters.stats();
    if (total === 0 && this.#opened === undefined)
      return { letters: [], matching: 0, next: undefined, total, catalogued: 0 };
    if (this.#asking >= askingMax)
      throw new TidegateError("TG_STORE_READ", "too many look through the dead letters: ask again", {
        retriable: true,
      });
    this.#idle?.cancel();
    if (!this.#closed) this.#idle = this.#deps.clock.setTimer(idleMs, () => void this.#next(() => this.#forget()));
    this.#asking += 1;
    try {
      return await this.#next(async () => this.#search(await this.#follow(), filter, page));
    } finally {
      this.#asking -= 1;
    }
  }

  async #search(
    { db, ids }: Opened,
    filter: LetterFilter,
    { limit, before = Number.POSITIVE_INFINITY }: { limit: number; before?: number | undefined },
  ): Promise<LetterPage> {
    const newest = [...ids].sort((a, b) => b - a);
    const isAll = Object.values(filter).every((value) => value === undefined);
    const found: LetterSummary[] = [];
    let matching = 0;
    for (let at = isAll ? newest.findIndex((id) => id < before) : 0; at >= 0 && at < newest.length; at += sliceMax) {
      if (this.#closed || (isAll && found.length > limit)) break;
      const slice = newest.slice(at, at + sliceMax);
      const range = { n: { $gte: slice.at(-1) ?? 0, $lte: slice[0] ?? 0 } };
      for (const document of await db.find<LetterDocument>(range).sort({ n: -1 })) {
        const letter = summaryOf(document as LetterDocument);
        if (!letterMatches(filter, letter, topicMatches)) continue;
        matching += 1;
        if (letter.id < before && found.length <= limit) found.push(letter);
      }
      await othersTurn();
    }
    const letters = found.slice(0, limit);
    return {
      letters,
      matching: isAll ? newest.length : matching,
      next: found.length > limit ? letters.at(-1)?.id : undefined,
      total: this.#deps.letters.stats().messages,
      catalogued: ids.size,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#idle?.cancel();
    await this.#working.catch(() => {});
  }

  #next<T>(work: () => T | Promise<T>): Promise<T> {
    const next = this.#working.catch(() => {}).then(work);
    this.#working = next;
    return next;
  }

  #forget(): void {
    this.#opened = undefined;
  }

  async #follow(): Promise<Opened> {
    if (this.#closed) throw new TidegateError("TG_STORE_READ", "the gateway is being stopped");
    const opened = await this.#open();
    try {
      await this.#catchUp(opened);
    } catch (error) {
      if (opened.inMemory || isReadFault(error)) throw error;
      // Its disk is full, for one: what NeDB has in memory and on disk may differ now.
      this.#deps.log.warn(
        { err: messageOf(error) },
        "the catalogue of dead letters cannot be written; it is kept in memory",
      );
      const other = await openInMemory();
      this.#opened = Promise.resolve(other);
      await this.#catchUp(other);
      return other;
    }
    if (!opened.inMemory && opened.lines > slackLines + 2 * opened.ids.size) this.#forget(); // the next one writes the file anew
    return opened;
  }

  async #catchUp(opened: Opened): Promise<void> {
    const { ids } = opened;
    const wanted = this.#deps.letters.newestIds(catalogueMax);
    const kept = new Set(wanted);
    const gone = [...ids].filter((id) => !kept.has(id));
    for (let at = 0; at < gone.length; at += sliceMax) await remove(opened, gone.slice(at, at + sliceMax));
    for (let at = 0; at < wanted.length && !this.#closed; ) {
      const id = wanted[at] ?? 0;
      if (ids.has(id)) {
        at += 1;
        continue;
      }
      const letters = await this.#deps.letters.read(id - 1, batch);
      const last = letters.at(-1)?.id;
      if (last === undefined) return; // went meanwhile, with all behind it
      const missing = letters.filter((letter) => kept.has(letter.id) && !ids.has(letter.id));
      await insert(opened, missing.map(documentOf));
      while (at < wanted.length && (wanted[at] ?? 0) <= last) at += 1;
    }
  }

  #open(): Promise<Opened> {
    this.#opened ??= this.#openFile().catch(async (error: unknown) => {
      this.#deps.log.warn(
        { err: messageOf(error) },
        "the catalogue of dead letters is kept in memory: its file cannot be used",
      );
      return openInMemory();
    });
    return this.#opened;
  }

  /** The file is written anew each time, as NeDB itself does at loading, but in slices. What a crash then leaves is made whole from the journal. */
  async #openFile(): Promise<Opened> {
    const { epoch } = this.#options;
    const { state, documents } = await readFileOf(this.#file, epoch);
    if (state === "damaged")
      this.#deps.log.warn(
        { file: this.#file },
        "the catalogue of dead letters is damaged; it is made anew from the journal",
      );
    await clearFile(this.#file, state);
    const { default: nedb } = await import("nedb-promises");
    const modes = { fileMode: 0o600, dirMode: 0o700 };
    const options = { filename: this.#file, modes }; // its types know no modes
    const db = nedb.create(options) as Db;
    await db.load();
    await db.ensureIndex({ fieldName: "n", unique: true, sparse: true });
    await db.insert({ _id: "store", epoch });
    const opened: Opened = { db, inMemory: false, ids: new Set(), lines: 2 };
    const known = this.#deps.letters.newestIds(catalogueMax).flatMap((id) => documents.get(id) ?? []);
    const wanted = known.map(shortened);
    for (let at = 0; at < wanted.length && !this.#closed; at += batch.messages)
      await insert(opened, wanted.slice(at, at + batch.messages));
    return opened;
  }
}

async function openInMemory(): Promise<Opened> {
  const { default: nedb } = await import("nedb-promises");
  const db = nedb.create({ inMemoryOnly: true }) as Db;
  await db.ensureIndex({ fieldName: "n", unique: true, sparse: true });
  return { db, inMemory: true, ids: new Set(), lines: 0 };
}

async function insert(opened: Opened, documents: readonly LetterDocument[]): Promise<void> {
  if (documents.length === 0) return;
  await opened.db.insertMany([...documents]);
  for (const { n } of documents) opened.ids.add(n);
  opened.lines += documents.length;
  await othersTurn();
}

async function remove(opened: Opened, ids: readonly number[]): Promise<void> {
  await opened.db.remove({ n: { $in: [...ids] } }, { multi: true });
  for (const id of ids) opened.ids.delete(id);
  opened.lines += ids.length;
  await othersTurn();
}

/** NeDB, when it has all in memory, answers in the same turn of the event loop. */
const othersTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const isReadFault = (error: unknown): boolean => (error as { code?: unknown }).code === "TG_STORE_READ";
