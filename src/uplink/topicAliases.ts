import type { Counter } from "../base/meter.ts";

/** What an alias costs in each PUBLISH (MQTT 5 section 3.3.2.3.4). */
export const aliasBytes = 3;
/** Topics that get one, at most, however many the cloud allows. */
const aliasesMax = 1024;
/** Of their names, together. */
const namesBytesMax = 256 * 1024;

/**
 * Short numbers in place of topics, for one connection towards the cloud: the first topics that come get one, as many as its CONNACK allows
 * [MQTT-3.2.2-17], and keep it until the connection ends. No eviction: a gateway's topics are few and repeat, and one that is thrown out would cost
 * its whole name again. A retransmission carries its topic whole, since the cloud may know it from another connection.
 */
export class TopicAliases {
  readonly #maximum: number;
  readonly #aliases = new Map<string, number>();
  readonly #saved: Counter;
  #namesBytes = 0;

  /** @param maximum the cloud's Topic Alias Maximum @param saved bytes that were not sent */
  constructor(maximum: number, saved: Counter) {
    this.#maximum = Math.min(maximum, aliasesMax);
    this.#saved = saved;
  }

  /** 0: the cloud knows none for this topic. */
  known(topic: string): number {
    return this.#aliases.get(topic) ?? 0;
  }

  /** What the topic's alias would be, to go out beside its name; 0: there is none left, or the name is as short. @param bytes of the name */
  next(bytes: number): number {
    const isRoom = this.#aliases.size < this.#maximum && this.#namesBytes + bytes <= namesBytesMax;
    return isRoom && bytes > aliasBytes ? this.#aliases.size + 1 : 0;
  }

  /** The PUBLISH that says so is on its way. */
  define(topic: string): void {
    this.#aliases.set(topic, this.#aliases.size + 1);
    this.#namesBytes += Buffer.byteLength(topic);
    this.#saved.value -= aliasBytes;
  }

  /** A PUBLISH went out with an alias alone. @param bytes of the name */
  used(bytes: number): void {
    this.#saved.value += bytes - aliasBytes;
  }
}
