import type { PublishPacket } from "../wire/mqtt/packet.ts";
import { encodePublish } from "../wire/mqtt/publish.ts";
import type { Link } from "./session.ts";

/** An alias costs 3 bytes in each PUBLISH, so that a topic of 6 characters saves nothing before its third. */
const topicLengthMin = 7;

/**
 * Topic aliases towards one client (MQTT 5 section 3.3.2.3.4), for as long as its connection lasts. Its first topics get one each and keep it: taking the
 * least recently used one back would cost a client with more topics than aliases a longer packet each time.
 */
export class TopicAliases {
  readonly #max: number;
  readonly #known = new Map<string, number>();
  #offered: { topic: string; frame: Buffer } | undefined;

  /** @param max above 0: as many as the client takes and we want to [MQTT-3.1.2-26] */
  constructor(max: number) {
    this.#max = max;
  }

  /** The alias that the client knows for a topic; negative: one that it can be told; 0: none. */
  of(topic: string): number {
    const known = this.#known.get(topic);
    if (known !== undefined) return known;
    const next = this.#known.size + 1;
    return next > this.#max || topic.length < topicLengthMin ? 0 : -next;
  }

  /** `frame` tells the client the alias that `of` gave for this topic; it counts once that frame is in the outbox. */
  offer(topic: string, frame: Buffer): void {
    this.#offered = { topic, frame };
  }

  /** Called by the outbox with each frame that it takes. */
  taken(frame: Buffer | undefined): void {
    if (this.#offered === undefined) return;
    const { topic, frame: offered } = this.#offered;
    if (frame !== offered) return;
    this.#known.set(topic, this.#known.size + 1);
    this.#offered = undefined;
  }
}

/** A PUBLISH as one client gets it, with an alias for its topic where it takes them. To be given to its outbox at once, or not at all. */
export function encodeFor(link: Link, packet: PublishPacket): Buffer {
  const { aliases } = link.outbox;
  const alias = aliases?.of(packet.topic) ?? 0;
  if (aliases === undefined || alias === 0) return encodePublish(packet, link.version);
  if (alias > 0) return encodePublish({ ...packet, topic: "", topicAlias: alias }, link.version);
  const frame = encodePublish({ ...packet, topicAlias: -alias }, link.version);
  if (frame.length > link.packetSizeMax) return encodePublish(packet, link.version); // 3 bytes may be too many
  aliases.offer(packet.topic, frame);
  return frame;
}
