import { expect } from "chai";
import { messageBytes, PublishFrames } from "../../../src/broker/publishFrames.ts";
import type { Link } from "../../../src/broker/session.ts";
import { Rig, turns } from "../../helpers/brokerRig.ts";

describe("clean sessions that do not acknowledge", () => {
  it("are bounded together, not only each for itself, and leave each its first messages", async () => {
    const maxBytes = 20_000;
    const session = { maxMessages: 10_000, maxBytes, whenFull: "drop-oldest", queueQos0: false } as const;
    const rig = new Rig({ limits: { maxInflight: 1, session } });
    const count = 12;
    for (let n = 0; n < count; n += 1) {
      const client = await rig.client(4, `c${n}`);
      client.send({ cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "t", qos: 1 }] });
    }
    await turns(20);
    expect(rig.broker.stats().subscriptions).to.equal(count);
    for (let n = 0; n < 200; n += 1) {
      rig.broker.publish({ topic: "t", payload: Buffer.alloc(50), qos: 1, retain: false, source: "source:x" });
    }
    const queued = [...rig.broker.clients()].map((client) => client.queued);
    // Each alone could keep about 75; four full sessions' worth over twelve is about 25 each, and 32 are left to each.
    expect(Math.max(...queued)).to.be.below(85);
    expect(Math.min(...queued)).to.be.at.least(32);
    expect(queued.reduce((sum, each) => sum + each, 0)).to.be.below(count * 40);
    expect(rig.dropped("queue-full")).to.be.above(0);
    await rig.close();
  });

  it("count with all that is kept for them: a hundred identifiers are more than the message", async () => {
    const maxBytes = 100_000;
    const session = { maxMessages: 10_000, maxBytes, whenFull: "drop-oldest", queueQos0: false } as const;
    const rig = new Rig({ limits: { maxInflight: 1, session } });
    const client = await rig.client(5, "c");
    const topic = "a/b/c/d/e/f/g";
    for (let n = 0; n < 128; n += 1) {
      const filter = topic.replaceAll("/", "").replace(/./g, (level, at: number) => `/${(n >> at) & 1 ? "+" : level}`);
      await client.subscribe(filter.slice(1), 1, { id: 2 ** 28 - 1 - n });
    }
    for (let n = 0; n < 500; n += 1) {
      rig.broker.publish({ topic, payload: Buffer.from("x"), qos: 1, retain: false, source: "source:x" });
    }
    const [{ queued } = { queued: 0 }] = [...rig.broker.clients()];
    expect(queued).to.be.within(50, maxBytes / (128 * 5));
    expect(rig.dropped("queue-full")).to.equal(500 - queued);
    await rig.close();
  });

  it("hold no more memory than that: what waits lies in no buffer with what does not", () => {
    const frames = new PublishFrames(() => 0);
    const buffers = new Map<ArrayBufferLike, number>();
    let counted = 0;
    for (let n = 0; n < 500; n += 1) {
      const message = { topic: "t", payload: Buffer.from("x"), qos: 2, retain: false, source: "source:x" } as const;
      frames.set(message);
      const link = { version: 5, packetSizeMax: Number.POSITIVE_INFINITY, outbox: { aliases: undefined } } as Link;
      const kept = frames.keep(link, 1, false, undefined);
      expect(frames.keep(link, 1, false, undefined), "shared").to.equal(kept);
      const { buffer, bytes } = kept!;
      buffers.set(buffer.buffer, buffer.buffer.byteLength);
      counted += bytes + 200;
      Buffer.allocUnsafe(2000); // as others do meanwhile
    }
    expect([...buffers.values()].reduce((sum, each) => sum + each, 0)).to.be.below(counted);
  });

  it("nor do those whose packet is not known yet: they lie together, whole", () => {
    const frames = new PublishFrames(() => 0);
    const buffers = new Map<ArrayBufferLike, number>();
    const sizes = Array.from({ length: 500 }, (_, n) => (n * 37) % (n % 10 === 0 ? 3000 : 100));
    const all = sizes.map((size, n) => {
      const payload = Buffer.alloc(size, n);
      const properties = { messageExpirySeconds: 9, correlationData: Buffer.from(`${n}`) };
      frames.set({ topic: "t", payload, qos: 2, retain: false, source: "source:x", properties });
      const owned = frames.owned();
      payload.fill(0xff); // the chunk that it came in is another's now
      Buffer.allocUnsafe(2000);
      return owned;
    });
    for (const [n, { payload, properties }] of all.entries()) {
      expect(Buffer.from(payload)).to.deep.equal(Buffer.alloc(sizes[n] ?? 0, n));
      expect(String(properties?.correlationData)).to.equal(`${n}`);
      buffers.set(payload.buffer, payload.buffer.byteLength);
    }
    const counted = all.reduce((sum, message) => sum + messageBytes(message) + 200, 0);
    expect([...buffers.values()].reduce((sum, each) => sum + each, 0)).to.be.below(counted);
  });
});
