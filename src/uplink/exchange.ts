import type { Clock, Timer } from "../base/clock.ts";
import type { Publisher, QueuedMessage, Store, UplinkQueue } from "../base/contracts.ts";
import type { InFlight } from "../base/inFlight.ts";
import type { Log } from "../base/log.ts";
import { encodeAck, writeAck } from "../wire/mqtt/ack.ts";
import type { ProtocolVersion } from "../wire/mqtt/packet.ts";
import { reason } from "../wire/mqtt/reasonCodes.ts";
import { Resumption } from "./resumption.ts";
import type { Carrier } from "./sender.ts";
import { SentIds } from "./sentIds.ts";
import type { Release, Slot, Window } from "./window.ts";

/** The broker's list of who waits for the disk was full: asked again after this. */
const againMs = 100;

export interface ExchangeDeps {
  readonly store: Pick<Store, "commit" | "entries" | "failed" | "durableGroup">;
  readonly publisher: Pick<Publisher, "whenDurable">;
  readonly queue: UplinkQueue;
  readonly window: Window;
  readonly clock: Clock;
  readonly log: Log;
  /** Takes one that an earlier run may have sent, but not with QoS 2, as a new one. */
  add(message: QueuedMessage): void;
  /** The cloud has it, and it has left the queue. */
  settled(packetId: number, message: QueuedMessage): void;
  /** The window holds what an earlier run had in flight. */
  ready(): void;
  /** Something can be sent. */
  pumpSoon(): void;
}

/**
 * QoS 2 towards the cloud: what waits for the disk before it goes out (PUBLISH for its identifier, PUBREL for its PUBREC), in order, and what a restart
 * finds. Messages of QoS 1 that come behind such a one wait with it.
 */
export class Exchange {
  readonly ids: SentIds;
  readonly #version: ProtocolVersion;
  readonly #deps: ExchangeDeps;
  readonly #resumption: Resumption;
  #link: Carrier | undefined;
  #staged: Slot[] = [];
  #stagedAt = 0;
  #releases: Release[] = [];
  #releasesAt = 0;
  readonly #ack = Buffer.allocUnsafeSlow(4);
  #timer: Timer | undefined;
  /** The newest group that holds something of it. */
  #newest = 0;
  readonly #onGroup = (durable: boolean): void => this.#durable(durable);

  constructor(options: { name: string; version: ProtocolVersion; inflight: number }, deps: ExchangeDeps) {
    const { store, clock, log, window, queue, add, settled, ready, pumpSoon } = deps;
    this.#version = options.version;
    this.#deps = deps;
    const freed = (packetIds: readonly number[]): void => {
      for (const packetId of packetIds) window.free(packetId);
      pumpSoon();
    };
    this.ids = new SentIds(options.name, { store, clock, log, freed, again: pumpSoon });
    const { inflight } = options;
    this.#resumption = new Resumption({ queue, window, ids: this.ids, inflight, add, settled, ready });
  }

  /** Looks for what an earlier run had in flight; `ready` is called when that is in the window, unless it is at once. */
  begin(): void {
    this.#resumption.begin();
  }

  /** Why nothing goes out, for people. */
  get problem(): string | undefined {
    const waits = this.#staged.length + this.#releases.length > 0;
    if (!waits || (this.#deps.store.failed === undefined && !this.ids.isFaulty)) return undefined;
    return "the disk takes no packet identifiers, without which nothing goes out with QoS 2";
  }

  /** There are identifiers on record. */
  get isOpen(): boolean {
    return !this.ids.isEmpty;
  }

  get isReady(): boolean {
    return this.#resumption.ready;
  }

  /** A connection is up, and the window is ready. @param takesQos2 the cloud does */
  attach(link: Carrier, sessionPresent: boolean, takesQos2: boolean): void {
    const { window } = this.#deps;
    this.#link = link;
    this.#resumption.reconnect(sessionPresent);
    window.reconnect(sessionPresent);
    this.#staged = [];
    this.#stagedAt = 0;
    this.#releases = [...window.releases()];
    this.#releasesAt = 0;
    // The cloud said PUBREC, so it has taken the message: to send it again, because it forgot that it owes us PUBCOMP, would make it two.
    if (!sessionPresent || !takesQos2) for (const release of this.#releases) this.#complete(release);
    this.#release();
    if (this.#newest > this.#deps.store.durableGroup) this.#deps.publisher.whenDurable(this.#newest, this.#onGroup);
  }

  detach(): void {
    this.#link = undefined;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Everything is on record, and nothing is left here: for the next start. @returns what is in flight, for the queue's `rewind` */
  release(): InFlight[] {
    this.ids.release();
    this.#resumption.release();
    this.#staged = [];
    this.#stagedAt = 0;
    this.#releases = [];
    this.#releasesAt = 0;
    return this.ids.load();
  }

  /** A message that came out of the queue: see Resumption.take. */
  take(message: QueuedMessage): Slot | "done" | undefined {
    return this.#resumption.take(message);
  }

  /** Whether it has to wait for the disk, or behind one that does. */
  waits(slot: Slot): boolean {
    return this.#staged.length > 0 || (slot.group > 0 && slot.group > this.#deps.store.durableGroup);
  }

  stage(slot: Slot): void {
    slot.staged = true;
    this.#staged.push(slot);
  }

  /** The next of those that waited, once it may go. */
  nextStaged(): Slot | undefined {
    if (this.#staged.length === 0) return undefined;
    while (this.#stagedAt < this.#staged.length) {
      const slot = this.#staged[this.#stagedAt];
      // Held meanwhile, it comes again by way of `retry`, and may stand here twice.
      if (slot?.place === "wire" && slot.staged && this.#deps.window.at(slot.packetId) === slot) {
        if (slot.group > this.#deps.store.durableGroup) return undefined;
        this.#pass();
        slot.staged = false;
        return slot;
      }
      this.#pass();
    }
    return undefined;
  }

  #pass(): void {
    this.#stagedAt += 1;
    if (this.#stagedAt < this.#staged.length && this.#stagedAt <= 1024) return;
    this.#staged = this.#staged.slice(this.#stagedAt);
    this.#stagedAt = 0;
  }

  /** PUBREC with success. False: the cloud cannot know that identifier. */
  pubrec(packetId: number): boolean {
    if (!this.isReady) return false;
    const { window } = this.#deps;
    const release = window.received(packetId);
    if (release !== undefined) {
      this.ids.received(release);
      this.#releases.push(release);
      return true;
    }
    const known = window.release(packetId);
    // Asked for it once more, or it is none of ours: it gets the answer that lets the cloud go on (MQTT 5 section 3.6.2.1).
    if (known?.sent) this.#sendPubrel(packetId);
    else if (known === undefined) {
      const bytes = encodeAck("pubrel", packetId, reason.packetIdentifierNotFound, this.#version);
      this.#link?.append(bytes, bytes.length);
    }
    return false;
  }

  /** False: no PUBREL went out for it. Any reason code will do: the cloud does not have the identifier any more. */
  pubcomp(packetId: number): boolean {
    const release = this.#deps.window.release(packetId);
    if (!release?.sent) return false;
    this.#complete(release);
    return true;
  }

  /** A message leaves the window without having been taken by the cloud, as far as is known. */
  leave(packetId: number): void {
    const { window } = this.#deps;
    const slot = window.remove(packetId);
    if (!slot?.noted) return;
    if (slot.qos === 2 && slot.known) {
      // The cloud may hold the identifier, and would take the next message with it for this one.
      this.#releases.push(window.restoreRelease(packetId, undefined));
      this.#release();
    } else this.ids.ended(packetId);
  }

  /** Commits what was noted in this turn. */
  commit(): void {
    const group = this.ids.commit();
    if (group === 0) return;
    this.#newest = group;
    this.#deps.publisher.whenDurable(group, this.#onGroup);
  }

  #durable(durable: boolean): void {
    if (!durable && this.#deps.store.failed === undefined) {
      this.#timer ??= this.#deps.clock.setTimer(againMs, () => {
        this.#timer = undefined;
        this.#durable(this.#newest <= this.#deps.store.durableGroup);
      });
    }
    this.#release();
    this.#deps.pumpSoon();
  }

  /** PUBREL for all whose PUBREC is on record, in the order of these. */
  #release(): void {
    if (this.#link === undefined) return;
    const { window, store } = this.#deps;
    for (; this.#releasesAt < this.#releases.length; this.#releasesAt += 1) {
      const release = this.#releases[this.#releasesAt];
      if (release === undefined || window.release(release.packetId) !== release) continue;
      if (release.group > store.durableGroup) return;
      release.sent = true;
      this.#sendPubrel(release.packetId);
    }
    this.#releases = [];
    this.#releasesAt = 0;
  }

  #sendPubrel(packetId: number): void {
    writeAck(this.#ack, 0, "pubrel", packetId);
    this.#link?.append(this.#ack, 4);
  }

  #complete(release: Release): void {
    const { window, queue, settled } = this.#deps;
    const { packetId, message } = release;
    window.complete(release);
    if (message !== undefined) {
      queue.settle(message);
      settled(packetId, message);
    }
    if (!this.#resumption.ended(packetId)) this.ids.ended(packetId);
  }
}
