import { expect } from "chai";
import { stopPeers } from "../helpers/peers.ts";
import { until } from "../helpers/wait.ts";
import type { Kit, Qos, Scheme, Seen, Version } from "./clients/kit.ts";
import type { PeerGateway } from "./peerGateway.ts";

export const versions: readonly Version[] = ["3.1.1", "5"];
/** Over plain TCP also the one before them: what is different in it is in CONNECT alone. */
export const allVersions: readonly Version[] = ["3.1", ...versions];

/** What any client may expect of any broker: each kit, version and transport goes through all of it. */
export function flows(gateway: () => PeerGateway, kit: Kit, version: Version, scheme: Scheme): void {
  const door = () => gateway().door(scheme);
  const base = `peer/${kit.name.replaceAll(/[^A-Za-z0-9]+/g, "-")}/${version}/${scheme}`;
  // At most 23 characters: some clients of MQTT 3.1 insist on it.
  const clientId = (name: string): string =>
    `${kit.name.slice(0, 9)}${version}${scheme}-${name}`.replaceAll(/[^A-Za-z0-9-]/g, "");
  const lines = (count: number): string[] => Array.from({ length: count }, (_, n) => `reading ${n}`);
  const payloads = (seen: readonly Seen[]): string[] => seen.map(({ payload }) => payload.trimEnd());

  const single = kit.readsOneFrame.includes(scheme);
  afterEach(stopPeers);

  for (const qos of [0, 1, 2] as const) {
    const count = single ? 10 : kit.waits && qos > 0 ? 30 : 200;
    it(`QoS ${qos}: ${count} messages there and back, in order`, async () => {
      const sent = lines(count);
      const subscriber = await kit.subscribe(door(), { version, qos, filter: `${base}/q${qos}/+` });
      for (let at = 0; at < count; at += single ? 1 : count) {
        const some = single ? sent.slice(at, at + 1) : sent;
        await kit.publish(door(), { version, qos, topic: `${base}/q${qos}/a` }, some);
        await until("all of them are there", () => subscriber.seen().length >= at + some.length);
      }
      await subscriber.leave();
      expect(payloads(subscriber.seen())).to.deep.equal(sent);
      if (kit.tellsFlags)
        expect(subscriber.seen().every((one) => one.qos === qos && one.retain === false)).to.equal(true);
    });
  }

  // It comes together with the SUBACK.
  if (!single)
    it("a retained message is there for who comes later, until it is cleared", async () => {
      const topic = `${base}/retained`;
      const kept = { version, qos: 1, retain: true } as const;
      await kit.publish(door(), { ...kept, topic }, ["kept"]);
      const late = await kit.subscribe(door(), { version, qos: 1, filter: topic });
      await until("it is there", () => late.seen().length > 0);
      await late.leave();
      expect(payloads(late.seen())).to.deep.equal(["kept"]);
      if (kit.tellsFlags) expect(late.seen()[0]?.retain).to.equal(true);
      await kit.publish(door(), { ...kept, topic }, [""]);
      await kit.publish(door(), { ...kept, topic: `${topic}/other` }, ["second"]);
      const later = await kit.subscribe(door(), { version, qos: 1, filter: `${topic}/#` });
      await until("the other is there", () => later.seen().length > 0);
      await later.leave();
      expect(payloads(later.seen())).to.deep.equal(["second"]);
      await kit.publish(door(), { ...kept, topic: `${topic}/other` }, [""]);
    });

  it("a will is sent when the client is killed, not when it says goodbye", async () => {
    const watcher = await kit.subscribe(door(), {
      version,
      qos: 1,
      filter: `${base}/will/#`,
      clientId: clientId("w"),
    });
    const dying = async (name: string) =>
      kit.subscribe(door(), {
        ...{ version, qos: 0, filter: "nothing/at/all", clientId: clientId(name.slice(0, 1)) },
        will: { topic: `${base}/will/${name}`, payload: `gone ${name}`, qos: 1 },
      });
    const polite = await dying("polite");
    const killed = await dying("killed");
    // mosquitto_sub asks for its will when it leaves with MQTT 5 (reason 0x04), so there it would be right to come.
    if (!(kit.name.startsWith("mosquitto") && version === "5")) await polite.leave();
    await killed.kill();
    await until("the will is there", () => watcher.seen().length > 0);
    await watcher.leave();
    expect(payloads(watcher.seen())).to.deep.equal(["gone killed"]);
    await polite.kill();
  });

  it("messages of 0 bytes to 256 KiB come whole", async () => {
    const subscriber = await kit.subscribe(door(), { version, qos: 2, filter: `${base}/large` });
    const sizes = [1, 100, 128, 16_384, 65_536, 262_144];
    const letters = "abcdefghijklmnopqrstuvwxyz0123456789,".repeat(8000);
    for (const [at, size] of sizes.entries()) {
      const qos = (at % 3) as Qos;
      await kit.publish(door(), { version, qos, topic: `${base}/large` }, [letters.slice(0, size)]);
      await until(`${size} bytes`, () => subscriber.seen().length > at);
    }
    await subscriber.leave();
    expect(subscriber.seen().map(({ payload }) => payload === letters.slice(0, payload.length))).to.not.include(false);
    expect(subscriber.seen().map(({ payload }) => payload.length)).to.deep.equal(sizes);
  });

  if (kit.keepsSessions)
    it("a persistent session gets what came while it was away, over kill -9 of the gateway", async () => {
      const options = {
        version,
        qos: 2,
        filter: `${base}/away/#`,
        clientId: clientId("a"),
        persistent: true,
      } as const;
      await (await kit.subscribe(door(), options)).leave();
      await kit.publish(door(), { version, qos: 1, topic: `${base}/away/1` }, lines(50));
      await kit.publish(door(), { version, qos: 2, topic: `${base}/away/2` }, lines(50));
      await gateway().crash();
      const again = await kit.subscribe(door(), options);
      await until("all of them are there", () => again.seen().length >= 100);
      await again.leave();
      const of = (topic: string) => payloads(again.seen().filter((one) => one.topic === `${base}/away/${topic}`));
      expect(of("1")).to.deep.equal(lines(50));
      expect(of("2")).to.deep.equal(lines(50));
      expect(again.seen()).to.have.length(100);
    });
}
