/**
 * Dead letters to browse: a read model on NeDB. The journal is the truth; this follows it, and is made anew from it whenever its file is lost, damaged
 * or another store's. NeDB is loaded only when there is something to browse, after the start; that it fails is a warning, and then it is kept in memory.
 */
import { join } from "node:path";
import type NeDB from "nedb-promises";
import type { Clock, Timer } from "../base/clock.ts";
import { type LetterDesk, type LetterFilter, type LetterSummary, letterMatches } from "../base/deadLetters.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import { topicMatches } from "../base/topic.ts";
import { clearFile, inspectFile } from "./catalogueFile.ts";
import { documentOf, type LetterDocument, type StoreDocument, summaryOf } from "./letterDocument.ts";

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
const batch = { messages: 64, bytes: 256 * 1024 };
const followMs = 1000;
/** Lines that its file may have beyond twice its documents before it is written anew. */
const slackLines = 2000;

type Db = NeDB<LetterDocument | StoreDocument>;

interface Opened {
  readonly db: Db;
  readonly inMemory: boolean;
  readonly ids: Set<number>;
  /** Lines appended since its file was written anew. */
  lines: number;
}

export class Catalogue {
  readonly #options: CatalogueOptions;
  readonly #deps: CatalogueDeps;
  readonly #file: string;
  #opened: Promise<Opened> | undefined;
  #following: Promise<void> = Promise.resolve();
  #timer: Timer | undefined;
  #closed = false;

  constructor(options: CatalogueOptions, deps: CatalogueDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#file = join(options.dir, "catalogue", "dead-letters.db");
    deps.letters.onChanged(() => this.#followSoon());
    if (deps.letters.stats().messages > 0) this.#followSoon();
  }

  /** @param before ids below this one only @throws TidegateError TG_STORE_READ when the disk cannot be asked now */
  async find(
    filter: LetterFilter,
    { limit, before }: { limit: number; before?: number | undefined },
  ): Promise<LetterPage> {
    await this.#follow();
    const { db, ids } = await this.#open();
    const query = {
      n: { $gt: 0, $lt: before ?? Number.MAX_SAFE_INTEGER },
      $where(this: LetterDocument): boolean {
        return letterMatches(filter, summaryOf(this), topicMatches);
      },
    };
    const found = (await db
      .find<LetterDocument>(query)
      .sort({ n: -1 })
      .limit(limit + 1)) as LetterDocument[];
    const letters = found.slice(0, limit).map(summaryOf);
    return {
      letters,
      matching: await db.count({ ...query, n: { $gt: 0 } }),
      next: found.length > limit ? letters.at(-1)?.id : undefined,
      total: this.#deps.letters.stats().messages,
      catalogued: ids.size,
    };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#following.catch(() => {});
  }

  #followSoon(): void {
    if (this.#closed) return;
    this.#timer ??= this.#deps.clock.setTimer(followMs, () => {
      this.#timer = undefined;
      this.#follow().catch((error: unknown) => {
        this.#deps.log.warn(
          { err: messageOf(error) },
          "the catalogue of dead letters could not follow; it tries again",
        );
        this.#followSoon();
      });
    });
  }

  /** Brings it up to what the journal has now. One after the other. */
  #follow(): Promise<void> {
    const next = this.#following.catch(() => {}).then(() => (this.#closed ? undefined : this.#followOnce()));
    this.#following = next;
    return next;
  }

  async #followOnce(): Promise<void> {
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
      this.#opened = Promise.resolve(await openInMemory());
      await this.#catchUp(await this.#opened);
    }
  }

  async #catchUp(opened: Opened): Promise<void> {
    const { ids } = opened;
    const wanted = this.#deps.letters.newestIds(catalogueMax);
    const kept = new Set(wanted);
    const gone = [...ids].filter((id) => !kept.has(id));
    for (let at = 0; at < gone.length; at += 500) await remove(opened, gone.slice(at, at + 500));
    for (let at = 0; at < wanted.length && !this.#closed; ) {
      const id = wanted[at] ?? 0;
      if (ids.has(id)) {
        at += 1;
        continue;
      }
      const letters = await this.#deps.letters.read(id - 1, batch);
      const last = letters.at(-1)?.id;
      if (last === undefined) return; // went meanwhile, with all behind it
      await insert(
        opened,
        letters.filter((letter) => kept.has(letter.id) && !ids.has(letter.id)),
      );
      while (at < wanted.length && (wanted[at] ?? 0) <= last) at += 1;
    }
    if (!opened.inMemory && opened.lines > slackLines + 2 * ids.size) await compact(opened);
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

  async #openFile(): Promise<Opened> {
    const { epoch } = this.#options;
    const state = await inspectFile(this.#file, epoch);
    if (state === "damaged")
      this.#deps.log.warn(
        { file: this.#file },
        "the catalogue of dead letters is damaged; it is made anew from the journal",
      );
    await clearFile(this.#file, state);
    const { default: nedb } = await import("nedb-promises");
    const modes = { fileMode: 0o600, dirMode: 0o700 };
    const options = { filename: this.#file, corruptAlertThreshold: 1, modes };
    const db = nedb.create(options) as Db;
    await db.load();
    await db.ensureIndex({ fieldName: "n", unique: true, sparse: true });
    if (state !== "good") await db.insert({ _id: "store", epoch });
    const documents = await db.find<LetterDocument>({ n: { $gt: 0 } }, { n: 1 });
    return { db, inMemory: false, ids: new Set(documents.map(({ n }) => n)), lines: 0 };
  }
}

async function openInMemory(): Promise<Opened> {
  const { default: nedb } = await import("nedb-promises");
  const db = nedb.create({ inMemoryOnly: true }) as Db;
  await db.ensureIndex({ fieldName: "n", unique: true, sparse: true });
  return { db, inMemory: true, ids: new Set(), lines: 0 };
}

async function insert(opened: Opened, letters: readonly LetterSummary[]): Promise<void> {
  if (letters.length === 0) return;
  await opened.db.insertMany(letters.map(documentOf));
  for (const { id } of letters) opened.ids.add(id);
  opened.lines += letters.length;
}

async function remove(opened: Opened, ids: readonly number[]): Promise<void> {
  await opened.db.remove({ n: { $in: [...ids] } }, { multi: true });
  for (const id of ids) opened.ids.delete(id);
  opened.lines += ids.length;
}

/** nedb-promises passes on what the datastore under it has; its types do not say so. */
async function compact(opened: Opened): Promise<void> {
  await (opened.db as unknown as { compactDatafileAsync(): Promise<void> }).compactDatafileAsync();
  opened.lines = 0;
}

const isReadFault = (error: unknown): boolean => (error as { code?: unknown }).code === "TG_STORE_READ";
