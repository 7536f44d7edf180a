import type { Session } from "./session.ts";
import type { Backlog, Waiting } from "./shareBacklog.ts";
import type { ShareGroup } from "./shareGroup.ts";

const idCount = 65_535;

/** A group's message in the hands of one member's session, which says what becomes of it. */
export class Given {
  readonly #group: ShareGroup;
  readonly #backlog: Backlog;
  readonly #session: Session;
  readonly #item: Waiting;
  /** Key of its mark in the store; undefined: it has none. */
  readonly #sentKey: string | undefined;

  constructor(group: ShareGroup, backlog: Backlog, session: Session, item: Waiting, key: string | undefined) {
    this.#group = group;
    this.#backlog = backlog;
    this.#session = session;
    this.#item = item;
    this.#sentKey = key;
  }

  /** QoS 1: acknowledged or refused [MQTT-4.8.2-6]. QoS 2: sent, so it stays with this session [MQTT-4.8.2-4, -5]. */
  done(): void {
    this.#backlog.done(this.#item);
  }

  /**
   * The connection ended with it unacknowledged (QoS 1) or unsent (QoS 2): it goes to another, if the group is still there.
   * @param packetId it was sent with; 0: not sent @param own the member's reference, which goes
   */
  back(packetId: number, own?: { queue: string; ordinal: number }): void {
    if (this.#backlog.ended) return;
    const written = own !== undefined || this.#sentKey !== undefined;
    if (written && !this.#group.references.takeBack(own, this.#sentKey)) return; // it stays with that session
    this.#backlog.back(this.#item, packetId === 0 ? undefined : { session: this.#session, packetId });
    this.#group.pumpSoon();
  }
}

/** What shared groups gave to one session and may get back, by packet id: QoS 1, not acknowledged. It all goes back when the connection ends. */
export class GivenMessages {
  /** Undefined until the first: most sessions share nothing. */
  #given: Map<number, Given> | undefined;
  #lastId = 0;

  get size(): number {
    return this.#given?.size ?? 0;
  }

  has(packetId: number): boolean {
    return this.#given?.has(packetId) === true;
  }

  add(packetId: number, given: Given): void {
    this.#given ??= new Map();
    this.#given.set(packetId, given);
  }

  /** Acknowledged, or sent at QoS 2. False: that id is none of these. */
  done(packetId: number): boolean {
    const given = this.#given?.get(packetId);
    if (given === undefined) return false;
    this.#given?.delete(packetId);
    given.done();
    return true;
  }

  /** It was not sent, and is not going to be. */
  handBack(packetId: number): void {
    const given = this.#given?.get(packetId);
    this.#given?.delete(packetId);
    given?.back(0);
  }

  /** The connection has ended. @param sent whether they were: then the same session gets them with the same id, should it get them again */
  back(sent: boolean): void {
    this.#lastId = 0;
    for (const [packetId, given] of this.#given ?? []) given.back(sent ? packetId : 0);
    this.#given = undefined;
  }

  /**
   * A packet id that neither these nor `others` have: the wanted one (0: none) if it is free, else one far from where the session's own ids go on. A
   * window is far smaller than 65535, so one is always near.
   */
  freeId(wanted: number, others: { has(packetId: number): boolean }, ownNext: number): number {
    const taken = (id: number): boolean => this.has(id) || others.has(id);
    if (wanted > 0 && !taken(wanted)) return wanted;
    if (this.#lastId === 0) this.#lastId = 1 + ((ownNext + (idCount >> 1)) % idCount);
    do this.#lastId = (this.#lastId % idCount) + 1;
    while (taken(this.#lastId));
    return this.#lastId;
  }
}
