/** Access rules at work: MQTT 5 section 5.4.2 (authorization), [MQTT-3.1.4-2], SUBACK and PUBACK 0x87. */
import { expect } from "chai";
import type { AccessRule } from "../../src/broker/options.ts";
import { connectPacket, durable, Rig, type TestClient, text, turns, versions } from "../helpers/brokerRig.ts";
import { testUser } from "../helpers/testUsers.ts";

const ann = testUser("ann", "pencil");
const bob = testUser("bob", "crayon");
const users = [ann, bob];
const asAnn = { username: "ann", password: Buffer.from("pencil") };
const asBob = { username: "bob", password: Buffer.from("crayon") };

type Line = Partial<Omit<AccessRule, "topic">>;
const rule = (topic: string, more: Line = {}): AccessRule => ({
  ...{ effect: "allow", action: "all", users: undefined, topic },
  ...more,
});
const deny = (topic: string, more: Line = {}): AccessRule => rule(topic, { effect: "deny", ...more });

const topics = (packets: readonly { cmd: string }[]): string[] =>
  packets.flatMap((packet) => ("topic" in packet && packet.cmd === "publish" ? [String(packet.topic)] : []));

for (const version of versions) {
  describe(`access rules, MQTT ${version}`, () => {
    let rig: Rig;
    const make = (rules: readonly AccessRule[], more: object = {}): Rig => {
      rig = new Rig({ users, rules, ...more });
      return rig;
    };
    const change = (rules: readonly AccessRule[], more: object = {}): number =>
      rig.broker.setAccess({ anonymous: true, users, rules, ...more });
    afterEach(() => rig.close());

    const refusedFilter = version === 5 ? 0x87 : 0x80;

    it("without rules everything is allowed, but for writing to $ topics", async () => {
      make([]);
      const client = await rig.client(version, "a");
      expect(await client.subscribe("#")).to.deep.equal([0]);
      expect(await client.subscribe("$SYS/#")).to.deep.equal([0]);
      client.publish("t", "x", 1);
      expect((await client.next("puback")).reasonCode ?? 0).to.equal(0);
      client.publish("$SYS/x", "x", 1);
      expect((await client.next("puback")).reasonCode ?? 0).to.equal(version === 5 ? 0x87 : 0);
      expect(rig.dropped("sys-topic")).to.equal(1);
    });

    it("PUBLISH that is denied goes nowhere, is answered and counted", async () => {
      make([rule("ok/#"), rule("#", { action: "subscribe" })]);
      const reader = await rig.client(version, "r");
      await reader.subscribe("#", 2);
      const client = await rig.client(version, "a");
      client.publish("no", "0");
      client.publish("no", "0", 0, { retain: true });
      client.publish("no", "1", 1, { messageId: 5 });
      const answered = version === 5 ? { reasonCode: 0x87 } : {};
      expect(await client.next("puback")).to.include({ messageId: 5, ...answered });
      client.publish("no", "2", 2, { messageId: 6 });
      expect(await client.next("pubrec")).to.include({ messageId: 6, ...answered });
      if (version === 4) {
        client.send({ cmd: "pubrel", messageId: 6 });
        await client.next("pubcomp"); // as in Mosquitto: acknowledged to the end, and discarded
      }
      client.publish("ok/x", "fine", 2, { messageId: 6 });
      await client.next("pubrec");
      expect(topics(await reader.take())).to.deep.equal(["ok/x"]);
      expect(rig.dropped("denied")).to.equal(4);
      expect(rig.broker.stats().retained).to.equal(0);
      if (version === 5) expect((await client.take()).length).to.equal(0);
    });

    it("a topic that was allowed and one that was not, in turn, many times over", async () => {
      make([rule("ok/#"), rule("#", { action: "subscribe" })]);
      const reader = await rig.client(version, "r");
      await reader.subscribe("#");
      const client = await rig.client(version, "a");
      for (let at = 0; at < 200; at += 1) client.publish(at % 2 === 0 ? `ok/${at % 100}` : `no/${at % 100}`, "x");
      expect(topics(await reader.take()).filter((topic) => topic.startsWith("ok/"))).to.have.length(100);
      expect(rig.dropped("denied")).to.equal(100);
    });

    it("SUBSCRIBE: each filter has its answer, in order; what is refused is not subscribed", async () => {
      make([rule("a/#"), deny("b/#"), rule("c")]);
      const client = await rig.client(version, "a");
      const five = version === 5 ? { nl: false, rap: false, rh: 0 as const } : {};
      const subscriptions = ["a/#", "b/x", "#", "c", "$share/g/a/+", "$share/g/b", "$SYS/#"].map((topic) => ({
        ...{ topic, qos: 1 as const, ...five },
      }));
      client.send({ cmd: "subscribe", messageId: 1, subscriptions });
      const no = refusedFilter;
      expect((await client.next("suback")).granted).to.deep.equal([1, no, no, 1, 1, no, no]);
      expect(rig.broker.stats().subscriptions).to.equal(3);
    });

    it("what an earlier deny takes out of a granted filter is withheld, live, retained and from shared ones", async () => {
      make([rule("#", { users: ["ann"] }), deny("a/secret"), rule("a/#")]);
      const admin = await rig.client(version, "admin", asAnn);
      admin.publish("a/secret", "kept", 1, { retain: true });
      admin.publish("a/open", "kept", 1, { retain: true });
      await admin.next("puback");
      const reader = await rig.client(version, "r", asBob);
      const member = await rig.client(version, "m", asBob);
      expect(await reader.subscribe("a/#", 1)).to.deep.equal([1]);
      expect(await member.subscribe("$share/g/a/#", 1)).to.deep.equal([1]);
      expect(topics(await reader.take())).to.deep.equal(["a/open"]);
      for (const qos of [0, 1, 2] as const) {
        admin.publish("a/secret", "live", qos);
        admin.publish("a/open", "live", qos);
        admin.send({ cmd: "pubrel", messageId: 1 });
      }
      expect(new Set(topics(await reader.take()))).to.deep.equal(new Set(["a/open"]));
      expect(new Set(topics(await member.take()))).to.deep.equal(new Set(["a/open"]));
    });

    it("%c and %u are the client's own, hostile ids get nothing by them", async () => {
      make([rule("d/%c/#"), rule("u/%u/#", { users: ["*"] })]);
      const client = await rig.client(version, "dev", asAnn);
      expect(await client.subscribe("d/dev/#")).to.deep.equal([0]);
      expect(await client.subscribe("u/ann/x")).to.deep.equal([0]);
      expect(await client.subscribe("u/bob/x")).to.deep.equal([refusedFilter]);
      for (const hostile of ["#", "+", "a/b"]) {
        const one = await rig.client(version, hostile);
        for (const filter of [`d/${hostile}`, "d/#", "d/+/#", "d/dev/#", "#"])
          expect(await one.subscribe(filter), `${hostile} ${filter}`).to.deep.equal([refusedFilter]);
        one.publish("d/dev/x", "x");
        one.publish("d/a/b", "x");
      }
      expect(topics(await client.take())).to.deep.equal([]);
      expect(rig.dropped("denied")).to.equal(6);
    });

    it("a will that may not be published is refused with CONNECT", async () => {
      make([rule("ok/#")]);
      const client = rig.open(version);
      const will = { topic: "no", payload: Buffer.from("x"), qos: 0 as const, retain: false };
      client.send(connectPacket(version, "a", { will }));
      expect((await client.connack()).code).to.equal(version === 5 ? 0x87 : 5);
      await client.gone();
      await rig.client(version, "a", { will: { ...will, topic: "ok/x" } });
    });

    it("and is looked at again when it is sent", async () => {
      make([rule("#")]);
      const reader = await rig.client(version, "r");
      await reader.subscribe("#");
      const will = { topic: "will", payload: Buffer.from("x"), qos: 0 as const, retain: false };
      const client = await rig.client(version, "a", { will });
      change([deny("will", { action: "publish" }), rule("#")]);
      client.drop();
      expect(topics(await reader.take())).to.deep.equal([]);
      expect(rig.dropped("denied")).to.equal(1);
    });

    for (const [user, published] of [
      ["ann", true],
      ["bob", false],
    ] as const) {
      it(`over a restart it is still ${user}'s, and ${published ? "published" : "withheld"} by that`, async () => {
        make([]);
        const will = { topic: "will", payload: Buffer.from("x"), qos: 1 as const, retain: true };
        await rig.client(version, "a", { will, ...(user === "ann" ? asAnn : asBob) });
        await rig.close();
        const { store } = rig;
        make([rule("will", { users: ["ann"] }), rule("#", { action: "subscribe" })], { store });
        rig.advance(2000);
        const reader = await rig.client(version, "r");
        await reader.subscribe("#");
        expect(topics(await reader.take())).to.deep.equal(published ? ["will"] : []);
        expect(rig.dropped("denied")).to.equal(published ? 0 : 1);
      });
    }

    describe("when rules change", () => {
      it("they hold for publishers and subscribers that are there, from the next message on", async () => {
        make([]);
        const reader = await rig.client(version, "r");
        await reader.subscribe("#");
        const client = await rig.client(version, "a");
        const publish = async (): Promise<string[]> => {
          client.publish("x", "1");
          client.publish("y", "1");
          return topics(await reader.take());
        };
        expect(await publish()).to.deep.equal(["x", "y"]);
        expect(change([deny("x", { action: "publish" }), rule("#")])).to.equal(0);
        expect(await publish()).to.deep.equal(["y"]);
        change([deny("y", { action: "subscribe" }), rule("#")]);
        expect(await publish()).to.deep.equal(["x"]);
        change([]);
        expect(await publish()).to.deep.equal(["x", "y"]);
        expect(client.closed || reader.closed).to.equal(false);
      });

      it("what waits for an absent client is looked at again", async () => {
        make([rule("#")]);
        const reader = await rig.client(version, "r", { ...durable(version), ...asBob });
        await reader.subscribe("#", 2);
        reader.drop();
        await turns();
        const client = await rig.client(version, "a");
        client.publish("secret", "1", 1, { messageId: 1 });
        client.publish("open", "1", 1, { messageId: 2 });
        client.publish("secret", "2", 2, { messageId: 3 });
        await client.next("pubrec");
        change([deny("secret", { action: "subscribe" }), rule("#")]);
        const again = await rig.client(version, "r", { ...durable(version), ...asBob });
        expect(topics(await again.take())).to.deep.equal(["open"]);
        expect(rig.dropped("denied")).to.equal(2);
        rig.advance(1000);
        expect(rig.store.references("session/r")?.size).to.equal(1); // the one in flight
      });

      it("also what waits for the window of a connected one", async () => {
        make([rule("#")], { limits: { maxInflight: 1 } });
        const reader = await rig.client(version, "r");
        await reader.subscribe("#", 1);
        const client = await rig.client(version, "a");
        for (const [at, topic] of ["open", "secret", "open"].entries())
          client.publish(topic, "1", 1, { messageId: at + 1 });
        const first = await reader.next("publish");
        change([deny("secret", { action: "subscribe" }), rule("#")]);
        reader.send({ cmd: "puback", messageId: first.messageId ?? 0 });
        expect(topics(await reader.take())).to.deep.equal(["open"]);
        expect(rig.dropped("denied")).to.equal(1);
      });

      it("whose user is removed, or has another password, is sent away, others stay", async () => {
        make([]);
        const [one, two, nobody] = [
          await rig.client(version, "1", asAnn),
          await rig.client(version, "2", asBob),
          await rig.client(version, "3"),
        ];
        const gone = async (client: TestClient): Promise<void> => {
          await client.gone();
          if (version === 5) expect((await client.next("disconnect")).reasonCode).to.equal(0x87);
        };
        expect(change([], { users: [ann, bob] })).to.equal(0);
        expect(change([], { users: [bob] })).to.equal(1);
        await gone(one);
        expect(change([], { users: [testUser("bob", "crayon")] })).to.equal(1);
        await gone(two);
        expect(change([], { users: [], anonymous: false })).to.equal(1);
        await gone(nobody);
      });

      it("who is logging in meanwhile is judged by the new ones", async () => {
        const ends: Array<() => void> = [];
        make([], {
          verify: (_kept: unknown, _word: unknown, settled: (right: boolean) => void) => ends.push(() => settled(true)),
        });
        const client = rig.open(version);
        client.send(connectPacket(version, "a", asAnn));
        await turns();
        change([], { users: [bob] });
        ends[0]?.();
        await turns();
        rig.clock.advance(100);
        expect((await client.connack()).code).to.equal(version === 5 ? 0x86 : 4);
      });
    });

    it("a session keeps its user over a restart: what comes for it meanwhile is judged by that", async () => {
      make([rule("for-ann", { users: ["ann"] }), rule("open")]);
      const reader = await rig.client(version, "r", { ...durable(version), ...asAnn });
      await reader.subscribe("for-ann", 1);
      await reader.subscribe("open", 1);
      await rig.close();
      const { store } = rig;
      make([rule("for-ann", { users: ["ann"] }), rule("#", { action: "publish" }), rule("open")], { store });
      const client = await rig.client(version, "a");
      client.publish("for-ann", "1", 1, { messageId: 1 });
      client.publish("open", "1", 1, { messageId: 2 });
      await client.next("puback");
      const again = await rig.client(version, "r", { ...durable(version), ...asAnn });
      expect(topics(await again.take())).to.deep.equal(["for-ann", "open"]);
    });

    it("$SYS needs a rule that names it, once there are rules", async () => {
      make([rule("#"), rule("$SYS/#", { users: ["ann"] })]);
      const reader = await rig.client(version, "r", asAnn);
      expect(await reader.subscribe("$SYS/#")).to.deep.equal([0]);
      const nobody = await rig.client(version, "n");
      expect(await nobody.subscribe("$SYS/#")).to.deep.equal([refusedFilter]);
      rig.broker.publish({ topic: "$SYS/x", payload: Buffer.from("1"), qos: 0, retain: false, source: "sys" });
      expect(text(await reader.next("publish"))).to.equal("1");
    });
  });
}
