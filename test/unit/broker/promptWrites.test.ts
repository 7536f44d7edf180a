import { duplexPair } from "node:stream";
import { expect } from "chai";
import { connectPacket, Rig, TestClient } from "../../helpers/brokerRig.ts";

describe("what a small chunk gives", () => {
  /** Sizes of the writes to a subscriber, for payloads that others send within one turn. */
  async function writesFor(...payloads: string[]): Promise<number[]> {
    const rig = new Rig();
    const [near, far] = duplexPair();
    rig.broker.attach(near);
    const subscriber = new TestClient(far, 4);
    subscriber.send(connectPacket(4, "subscriber"));
    await subscriber.connack();
    await subscriber.subscribe("t", 0);
    const others = await Promise.all(payloads.map((_, n) => rig.client(4, `other${n}`)));
    const sizes: number[] = [];
    const write = near.write.bind(near);
    near.write = ((bytes: Buffer, done: () => void) => {
      sizes.push(bytes.length);
      return write(bytes, done);
    }) as typeof near.write;
    for (const [n, payload] of payloads.entries()) others[n]?.publish("t", payload);
    expect((await subscriber.take()).length).to.equal(payloads.length);
    await rig.close();
    return sizes;
  }
  const around = 5; // header, length, topic's length, topic

  it("is written at once when it is the first of its turn, and what follows at the turn's end", async () => {
    expect(await writesFor("1", "22", "333")).to.deep.equal([around + 1, 2 * around + 2 + 3]);
  });

  it("waits for the others when it is large: then there is more to do than one packet", async () => {
    const large = "x".repeat(1100);
    const header = around + 1; // a length of two bytes
    expect(await writesFor(large, "22", "333")).to.deep.equal([header + 1100 + 2 * around + 2 + 3]);
  });
});
