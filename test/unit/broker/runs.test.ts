import { expect } from "chai";
import fc from "fast-check";
import { generate, type IPublishPacket, type Packet } from "mqtt-packet";
import {
  durable,
  Rig,
  type RigOptions,
  type TestClient,
  turns,
  type Version,
  versions,
} from "../../helpers/brokerRig.ts";

/** A row of packets of one kind whose ids count up, as 1 does after 65,535. */
interface Row {
  readonly from: "publisher" | "subscriber";
  readonly cmd: "publish" | "puback" | "pubrec" | "pubrel" | "pubcomp" | "pingreq";
  readonly topic: string;
  readonly qos: 0 | 1 | 2;
  readonly dup: boolean;
  readonly retain: boolean;
  readonly id: number;
  readonly count: number;
  readonly payload: string;
}

const rows = fc.array(
  fc.record<Row>({
    from: fc.constant("publisher"),
    cmd: fc.constant("publish"),
    topic: fc.constantFrom("a/b", "a/b", "a/c", "none"),
    qos: fc.constantFrom(0, 1, 2),
    dup: fc.nat(9).map((n) => n === 0),
    retain: fc.nat(19).map((n) => n === 0),
    id: fc.oneof(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 65_530, max: 65_535 })),
    count: fc.integer({ min: 1, max: 12 }),
    payload: fc.constantFrom("x", "x", "longer"),
  }),
  { minLength: 1, maxLength: 12 },
);
/** Of what the broker gave ids from 1 on, of ids that it never gave, and now and then the answer of another QoS, which ends the connection. */
const answers = fc.array(
  fc.record<Row>({
    from: fc.constantFrom("subscriber", "subscriber", "publisher"),
    cmd: fc.constantFrom("puback", "puback", "pubrec", "pubcomp", "pubrel", "pingreq"),
    topic: fc.constant(""),
    qos: fc.constant(0),
    dup: fc.constant(false),
    retain: fc.constant(false),
    id: fc.integer({ min: 1, max: 12 }),
    count: fc.integer({ min: 1, max: 8 }),
    payload: fc.constant(""),
  }),
  { maxLength: 6 },
);

function packetsOf({ cmd, topic, qos, dup, retain, id, count, payload }: Row, version: Version): Buffer[] {
  return Array.from({ length: count }, (_, n) => {
    const messageId = 1 + ((id - 1 + n) % 65_535);
    const packet =
      cmd === "publish"
        ? { cmd, topic, qos, retain, payload: `${payload}${n % 10}`, dup: dup && qos > 0, messageId }
        : { cmd, messageId };
    return generate(packet as Packet, { protocolVersion: version });
  });
}

/** What all got who took part, and what was counted. */
async function played(
  version: Version,
  options: RigOptions,
  steps: ReadonlyArray<readonly Row[]>,
  cut: (packets: Buffer[]) => Buffer[],
): Promise<unknown> {
  const rig = new Rig(options);
  const publisher = await rig.client(version, "publisher");
  const subscriber = await rig.client(version, "subscriber");
  const others = [await rig.client(version, "low"), await rig.client(version === 4 ? 5 : 4, "other")];
  await publisher.subscribe("a/c", 1, version === 5 ? { nl: true } : {});
  await subscriber.subscribe("a/#", 2);
  await others[0]?.subscribe("a/c", 0);
  await others[1]?.subscribe("a/c", 2);
  publisher.publish("a/b", "warm"); // topics are known by their bytes from now on
  publisher.publish("a/c", "warm");
  await turns();
  const all = { publisher, subscriber };
  for (const step of steps) {
    for (const name of ["publisher", "subscriber"] as const) {
      const packets = step.filter(({ from }) => from === name).flatMap((row) => packetsOf(row, version));
      for (const chunk of cut(packets)) all[name].raw(chunk);
      await turns();
    }
  }
  const got = [];
  for (const client of [publisher, subscriber, ...others]) got.push(await client.take(), client.closed);
  const counted = rig.meter.expose().split("\n");
  const metrics = counted.filter((line) => /^tidegate_mqtt_(messages|packets|payload|dropped|protocol)/.test(line));
  await rig.close();
  return { got, metrics };
}

/** Packets that lie side by side in one chunk may be handled together. It must be as if each had come by itself. */
describe("packets that follow on each other", () => {
  for (const version of versions) {
    it(`are handled as if each had come in a chunk of its own, MQTT ${version}`, async function () {
      this.timeout(60_000);
      const limits = fc.record({
        maxInflight: fc.constantFrom(3, 10, 100),
        receiveMaximum: fc.constantFrom(10, 100),
      });
      const cuts = fc.array(fc.integer({ min: 1, max: 90 }), { maxLength: 4 });
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.oneof(rows, answers), { maxLength: 6 }),
          limits,
          cuts,
          async (steps, less, sizes) => {
            const together = (packets: Buffer[]): Buffer[] => {
              let rest = Buffer.concat(packets);
              const chunks = sizes.map((size) => {
                const chunk = rest.subarray(0, size);
                rest = rest.subarray(size);
                return chunk;
              });
              return [...chunks, rest].filter(({ length }) => length > 0);
            };
            const alone = await played(version, { limits: less }, steps, (packets) => packets);
            expect(await played(version, { limits: less }, steps, together)).to.deep.equal(alone);
          },
        ),
        { numRuns: 60 },
      );
    });

    it(`keep their order and get ids that go round at 65,535, MQTT ${version}`, async function () {
      this.timeout(60_000);
      const rig = new Rig();
      const publisher = await rig.client(version, "publisher");
      const subscriber = await rig.client(version, "subscriber");
      await subscriber.subscribe("a", 1);
      publisher.publish("a", "warm");
      await subscriber.take();
      const each = 50;
      for (let first = 0; first < 66_000; first += each) {
        const ids = Array.from({ length: each }, (_, n) => 1 + ((first + n) % 65_535));
        const row = {
          cmd: "publish",
          topic: "a",
          qos: 1,
          dup: false,
          retain: false,
          payload: "x",
          count: each,
        } as const;
        publisher.raw(Buffer.concat(packetsOf({ ...row, from: "publisher", id: ids[0] ?? 0 }, version)));
        const got = await taken(subscriber, each);
        expect(got.map(({ messageId }) => messageId)).to.deep.equal(ids);
        expect(got.map(({ payload }) => String(payload))).to.deep.equal(ids.map((_, n) => `x${n % 10}`));
        expect((await taken(publisher, each)).map(({ messageId }) => messageId)).to.deep.equal(ids);
        subscriber.raw(
          Buffer.concat(packetsOf({ ...row, cmd: "puback", from: "subscriber", id: ids[0] ?? 0 }, version)),
        );
      }
      await rig.close();
    });
  }

  it("pass by an id that is still in use", async () => {
    const rig = new Rig({ limits: { maxInflight: 200 } });
    const publisher = await rig.client(4, "publisher");
    const subscriber = await rig.client(4, "subscriber");
    await subscriber.subscribe("a", 1);
    publisher.publish("a", "warm");
    const row = { cmd: "publish", topic: "a", qos: 1, dup: false, retain: false, payload: "x", id: 1 } as const;
    const publish = (count: number) => publisher.raw(Buffer.concat(packetsOf({ ...row, from: "publisher", count }, 4)));
    const acknowledge = (id: number, count: number) =>
      subscriber.raw(Buffer.concat(packetsOf({ ...row, cmd: "puback", from: "subscriber", id, count }, 4)));
    await subscriber.take();
    publish(50);
    await taken(subscriber, 50);
    acknowledge(1, 9);
    acknowledge(11, 40); // all but 10
    const seen: Array<number | undefined> = [];
    for (let first = 51; first <= 65_501; first += 50) {
      publish(50);
      const ids = (await taken(subscriber, 50)).map(({ messageId }) => messageId);
      acknowledge(first, Math.min(50, 65_536 - first));
      seen.push(...ids);
    }
    expect(seen.slice(-16)).to.deep.equal([65_535, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16]);
    await rig.close();
  });

  it("end with their connection: nothing behind the one that ended it is looked at", async () => {
    const rig = new Rig();
    const client = await rig.client(4, "client", durable(4));
    const row = {
      from: "publisher",
      topic: "a",
      qos: 2,
      dup: false,
      retain: false,
      payload: "x",
      id: 1,
      count: 3,
    } as const;
    client.raw(Buffer.concat(packetsOf({ ...row, cmd: "publish" }, 4)));
    await client.next("pubrec");
    let tried = 0;
    rig.store.commit = () => {
      tried += 1;
      throw new Error("no room");
    };
    client.raw(Buffer.concat(packetsOf({ ...row, cmd: "pubrel" }, 4)));
    await client.gone();
    expect(tried, "the first PUBREL, and that the session's connection has ended").to.equal(2);
    await rig.close();
  });

  it("stop at the limit of an outbox: what has no room is dropped at QoS 0 and waits at QoS 1", async () => {
    for (const qos of [0, 1] as const) {
      const rig = new Rig({ limits: { outboxBytes: 1000 } });
      const publisher = await rig.client(4, "publisher");
      const subscriber = await rig.client(4, "subscriber");
      await subscriber.subscribe("a", qos);
      publisher.publish("a", "warm");
      await subscriber.take();
      const payload = "y".repeat(95);
      const row = { cmd: "publish", topic: "a", dup: false, retain: false, payload, id: 1, count: 30 } as const;
      publisher.raw(Buffer.concat(packetsOf({ ...row, from: "publisher", qos }, 4)));
      const got = await subscriber.take();
      const dropped = rig.meter.expose().match(/dropped_total\{reason="outbox-full"\} (\d+)/)?.[1] ?? "0";
      expect([got.length, Number(dropped)]).to.deep.equal(qos === 0 ? [10, 20] : [30, 0]);
      await rig.close();
    }
  });
});

/** Until so many packets have come. */
async function taken(client: TestClient, count: number): Promise<IPublishPacket[]> {
  while (client.received.length < count && !client.closed) await turns(1);
  return client.received.splice(0) as IPublishPacket[];
}
