import { expect } from "chai";
import { type Connect, disconnect, P, type Property } from "./frames.ts";
import { joined, kept, type Peer, Rig, turns, withRig, witness } from "./support.ts";

/** A will after `delay` s, of a session that is kept for `expiry` s. */
const delayed = (delay: number, expiry: number): Connect => ({
  clean: false,
  properties: [[P.sessionExpiry, expiry]],
  will: { topic: "will", payload: "w", qos: 1, properties: [[P.willDelay, delay]] },
});

const published = ["PUBLISH q1 will=w"];

/** Nothing until `seconds` have passed, then the will, then nothing more. */
async function comesAfter(rig: Rig, seen: Peer, seconds: number): Promise<void> {
  rig.advance(seconds * 1000 - 1000);
  expect(await seen.says(), "too early").to.deep.equal([]);
  rig.advance(2000);
  expect(await seen.says(), `after ${seconds} s`).to.deep.equal(published);
  rig.advance(24 * 3600_000);
  expect(await seen.says(), "again").to.deep.equal([]);
}

describe("MQTT 5 Will Delay Interval", () => {
  it(
    "[MQTT-3.1.2-8] the cable is pulled: published when the delay has passed",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      await comesAfter(rig, seen, 30);
    }),
  );
  it(
    "[3.1.3.2.2] the session ends before the delay: published when it ends",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(3600, 30))).drop();
      await comesAfter(rig, seen, 30);
    }),
  );
  it(
    "[3.1.3.2.2] the session ends with the connection: published at once",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 0))).drop();
      expect(await seen.says()).to.deep.equal(published);
    }),
  );
  it(
    "[MQTT-3.1.2-22] the Keep Alive passes: the delay counts from the close",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", { ...delayed(30, 3600), keepAlive: 10 });
      rig.advance(16_000);
      await peer.gone();
      await comesAfter(rig, seen, 29); // up to a second of it has passed already
    }),
  );

  const withWill: ReadonlyArray<readonly [string, number, readonly Property[] | undefined, number]> = [
    ["0x04", 0x04, undefined, 30],
    ["0x82", 0x82, undefined, 30],
    ["0x04 and a Session Expiry Interval of 10", 0x04, [[P.sessionExpiry, 10]], 10],
  ];
  for (const [name, code, list, seconds] of withWill) {
    it(
      `[MQTT-3.1.2-8] DISCONNECT ${name}: published ${seconds} s later`,
      withRig(async (rig) => {
        const seen = await witness(rig);
        const peer = await joined(rig, "c", delayed(30, 3600));
        peer.send(disconnect(code, list));
        await peer.gone();
        await comesAfter(rig, seen, seconds);
      }),
    );
  }
  it(
    "[MQTT-3.1.2-8] DISCONNECT 0x04 with a Session Expiry Interval of 0 ends the session: published at once",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", delayed(30, 3600));
      peer.send(disconnect(0x04, [[P.sessionExpiry, 0]]));
      await peer.gone();
      expect(await seen.says()).to.deep.equal(published);
    }),
  );
  it(
    "[MQTT-3.14.4-3] [MQTT-3.1.2-10] DISCONNECT 0x00: never",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", delayed(30, 3600));
      peer.send(disconnect(0));
      await peer.gone();
      rig.advance(7200_000);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.1.2-8] the server ends the connection for an error: published when the delay has passed",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig, "c", delayed(30, 3600));
      peer.send(Buffer.from([0xc1, 0]));
      await peer.gone();
      await comesAfter(rig, seen, 30);
    }),
  );
});

describe("MQTT 5 Will Delay Interval: the client comes back", () => {
  it(
    "[MQTT-3.1.3-9] [MQTT-3.1.2-8] within the delay, to its session: no will",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      rig.advance(29_000);
      const back = await joined(rig, "c", kept);
      rig.advance(3600_000);
      expect(await seen.says()).to.deep.equal([]);
      await back.alive();
    }),
  );
  it(
    "[MQTT-3.1.3-9] within the delay and lost again: the delay of the new will counts from then",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      rig.advance(20_000);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      await comesAfter(rig, seen, 30);
    }),
  );
  it(
    "[MQTT-3.1.2-4] [3.1.3.2.2] within the delay with Clean Start: its session ends, and the will is published",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      await joined(rig, "c");
      expect(await seen.says()).to.deep.equal(published);
      rig.advance(3600_000);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );
  it(
    "[MQTT-3.1.2-10] after the delay: no second time",
    withRig(async (rig) => {
      const seen = await witness(rig);
      await (await joined(rig, "c", delayed(30, 3600))).drop();
      rig.advance(32_000);
      expect(await seen.says()).to.deep.equal(published);
      await (await joined(rig, "c", kept)).drop();
      rig.advance(7200_000);
      expect(await seen.says()).to.deep.equal([]);
    }),
  );

  const takeOvers: ReadonlyArray<readonly [string, Connect, Connect, readonly string[]]> = [
    ["no delay: published", delayed(0, 3600), kept, published],
    ["a delay and the session goes on: not published", delayed(30, 3600), kept, []],
    ["a delay, but the session ended with its connection: published", delayed(30, 0), kept, published],
    ["a delay and Clean Start: published", delayed(30, 3600), { ...kept, clean: true }, published],
    ["no delay and Clean Start: published", delayed(0, 3600), { ...kept, clean: true }, published],
  ];
  for (const [name, first, second, expected] of takeOvers) {
    it(
      `[MQTT-3.1.4-3] [MQTT-3.1.3-9] taken over, ${name}`,
      withRig(async (rig) => {
        const seen = await witness(rig);
        const old = await joined(rig, "c", first);
        const taker = await joined(rig, "c", second);
        await old.gone();
        expect(await old.says()).to.deep.equal(["DISCONNECT 8e"]);
        expect(await seen.says()).to.deep.equal(expected);
        rig.advance(3600_000);
        expect(await seen.says()).to.deep.equal([]);
        await taker.alive();
      }),
    );
  }
});

describe("MQTT 5 will and restart", () => {
  /** A durable witness that is away meanwhile. */
  async function waiting(rig: Rig): Promise<void> {
    const seen = await joined(rig, "seen", kept);
    await seen.subscribe("will", 1);
    seen.send(disconnect(0));
    await seen.gone();
  }

  for (const [name, delay] of [
    ["without delay", 0],
    ["with a delay", 30],
  ] as const) {
    it(`[MQTT-3.1.2-7, -8] a connected client ${name}, the server crashes: published after the restart, once`, async () => {
      const rig = new Rig();
      await waiting(rig);
      await joined(rig, "c", delayed(delay, 3600));
      await turns();
      const after = new Rig({ store: rig.store.crash() });
      after.advance(delay * 1000 + 2000);
      const seen = await joined(after, "seen", kept);
      after.advance(1000);
      expect(await seen.says()).to.deep.equal(published);
      after.advance(3600_000);
      expect(await seen.says()).to.deep.equal([]);
      await after.close();
    });

    it(`[MQTT-3.1.2-7, -8] a connected client ${name}, the server shuts down: published then or after the restart, once`, async () => {
      const rig = new Rig();
      await waiting(rig);
      await joined(rig, "c", delayed(delay, 3600));
      await turns();
      await rig.close();
      const after = new Rig({ store: rig.store.crash() });
      after.advance(delay * 1000 + 2000);
      const seen = await joined(after, "seen", kept);
      after.advance(1000);
      expect(await seen.says()).to.deep.equal(published);
      await after.close();
    });
  }

  it("[MQTT-3.1.2-8] the delay goes on over a crash of the server", async () => {
    const rig = new Rig();
    await waiting(rig);
    await (await joined(rig, "c", delayed(30, 3600))).drop();
    rig.advance(5000);
    await turns();
    const after = new Rig({ store: rig.store.crash() });
    const seen = await joined(after, "seen", kept);
    expect(await seen.says()).to.deep.equal([]);
    after.advance(32_000);
    expect(await seen.says()).to.deep.equal(published);
    await after.close();
  });

  it("[MQTT-3.1.3-9] the client is back after a crash of the server, within the delay: no will", async () => {
    const rig = new Rig();
    await waiting(rig);
    await joined(rig, "c", delayed(30, 3600));
    await turns();
    const after = new Rig({ store: rig.store.crash() });
    await joined(after, "c", kept);
    after.advance(3600_000 / 2);
    const seen = await joined(after, "seen", kept);
    expect(await seen.says()).to.deep.equal([]);
    await after.close();
  });

  it("[MQTT-3.1.2-10] a will discarded by DISCONNECT 0x00 stays so over a crash of the server", async () => {
    const rig = new Rig();
    await waiting(rig);
    const peer = await joined(rig, "c", delayed(0, 3600));
    peer.send(disconnect(0));
    await peer.gone();
    const after = new Rig({ store: rig.store.crash() });
    after.advance(60_000);
    expect(await (await joined(after, "seen", kept)).says()).to.deep.equal([]);
    await after.close();
  });
});
