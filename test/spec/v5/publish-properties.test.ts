import { expect } from "chai";
import { P, type Property, publish } from "./frames.ts";
import { fault, joined, kept, withRig, witness } from "./support.ts";

/** Passed on as it came: one property each. */
const passed: ReadonlyArray<readonly [string, Property]> = [
  ["[MQTT-3.3.2-4] Payload Format Indicator 0", [P.payloadFormat, 0]],
  ["[MQTT-3.3.2-4] Payload Format Indicator 1", [P.payloadFormat, 1]],
  ["[MQTT-3.3.2-15] Response Topic", [P.responseTopic, "back/to/\ufeffme"]],
  ["[MQTT-3.3.2-16] Correlation Data", [P.correlation, Buffer.from([0, 1, 254, 255])]],
  ["[MQTT-3.3.2-16] Correlation Data of no bytes", [P.correlation, Buffer.alloc(0)]],
  ["[MQTT-3.3.2-20] Content Type", [P.contentType, "application/\u00fcber"]],
  ["[MQTT-3.3.2-20] Content Type of no characters", [P.contentType, ""]],
  ["[MQTT-3.3.2-17] User Property", [P.user, ["", ""]]],
];

describe("MQTT 5 PUBLISH properties", () => {
  for (const [name, property] of passed) {
    it(
      `${name} goes to every subscriber as it came: at once, later, retained, by every QoS`,
      withRig(async (rig) => {
        const seen = await joined(rig, "seen");
        await seen.subscribe("#", 2);
        const away = await joined(rig, "away", kept);
        await away.subscribe("#", 1);
        await away.drop();
        const peer = await joined(rig);
        for (const qos of [0, 1, 2])
          peer.publish("t", "x", { qos, id: qos, retain: qos === 2, properties: [property] });
        const back = await (async () => {
          await peer.next("PUBREC");
          return joined(rig, "away", kept);
        })();
        const late = await joined(rig, "late");
        await late.subscribe("t");
        const all = [...(await seen.publishes(3)), ...(await back.publishes(2)), ...(await late.publishes(1))];
        for (const { properties } of all) expect(properties).to.deep.equal([property]);
      }),
    );
  }

  it(
    "[MQTT-3.3.2-17, -18] many User Properties keep their order, the same name as well",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const names = ["b", "a", "b", "__proto__", "a", "constructor", "b"];
      const list = names.map((name, at): Property => [P.user, [name, String(at)]]);
      (await joined(rig)).publish("t", "x", { properties: list });
      const [got] = await seen.publishes(1);
      expect(got?.properties).to.deep.equal(list);
    }),
  );

  it(
    "[MQTT-3.3.2-17] all of them at once, in a big packet",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const list = passed.filter(([name]) => !/0$|no /.test(name)).map(([, property]) => property);
      const more = Array.from({ length: 300 }, (_, at): Property => [P.user, [`name ${at}`, "v".repeat(at)]]);
      (await joined(rig)).publish("t", "x", { properties: [...list, ...more] });
      const [got] = await seen.publishes(1);
      expect(got?.properties.filter(([id]) => id === P.user).slice(-300)).to.deep.equal(more);
      expect(got?.properties).to.have.deep.members([...list, ...more]);
    }),
  );

  it(
    "[MQTT-2.2.2-1] no properties: a Property Length of 0",
    withRig(async (rig) => {
      const seen = await witness(rig);
      (await joined(rig)).publish("t", "x");
      const [got] = await seen.publishes(1);
      expect(got?.bytes).to.deep.equal(publish("t", "x"));
    }),
  );

  for (const back of ["a/+", "#", "a/#"]) {
    it(
      `[MQTT-3.3.2-14] a Response Topic with wildcards is refused: ${back}`,
      withRig((rig) => fault(rig, publish("t", "x", { properties: [[P.responseTopic, back]] }), [0x81, 0x82, 0x90])),
    );
  }

  it(
    "[3.3.2.3.2] a payload that is not the UTF-8 it says is passed on, or refused with 0x99, but not changed",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      const bytes = publish("t", Buffer.from([0xff, 0xfe]), { qos: 1, id: 1, properties: [[P.payloadFormat, 1]] });
      peer.send(bytes);
      const said = (await peer.says()).join();
      expect(["PUBACK 1 00", "PUBACK 1 99", "DISCONNECT 99"]).to.include(said);
      const got = await seen.take();
      expect(got.length).to.equal(said === "PUBACK 1 00" ? 1 : 0);
      for (const seenBytes of got) expect([...seenBytes.bytes.subarray(-2)]).to.deep.equal([0xff, 0xfe]);
    }),
  );
});

describe("MQTT 5 Message Expiry Interval", () => {
  it(
    "[MQTT-3.3.2-6] at once: as it came",
    withRig(async (rig) => {
      const seen = await witness(rig);
      const peer = await joined(rig);
      for (const [at, seconds] of [1, 60, 0xffff_ffff].entries())
        peer.publish("t", "x", { qos: at, id: at, properties: [[P.expiry, seconds]] });
      const lines = ["PUBLISH q0 t=x 2:1", "PUBLISH q1 t=x 2:60", "PUBLISH q2 t=x 2:4294967295"];
      expect(await seen.says()).to.deep.equal(lines);
    }),
  );

  for (const qos of [1, 2]) {
    it(
      `[MQTT-3.3.2-5, -6] QoS ${qos} that waited for a session: less the time it waited, or not at all`,
      withRig(async (rig) => {
        const away = await joined(rig, "away", kept);
        await away.subscribe("t", qos);
        await away.drop();
        const peer = await joined(rig);
        for (const [at, seconds] of [5, 60, 9, 4000].entries())
          peer.publish("t", String(at), { qos, id: at + 1, properties: [[P.expiry, seconds]] });
        peer.publish("t", "never", { qos, id: 9 });
        await peer.alive();
        rig.advance(10_000);
        const lines = [`PUBLISH q${qos} t=1 2:50`, `PUBLISH q${qos} t=3 2:3990`, `PUBLISH q${qos} t=never`];
        expect(await (await joined(rig, "away", kept)).says()).to.deep.equal(lines);
      }),
    );
  }

  it(
    "[MQTT-3.3.2-5, -6] over a crash of the server",
    withRig(async (rig) => {
      const away = await joined(rig, "away", kept);
      await away.subscribe("t", 1);
      await away.drop();
      const peer = await joined(rig);
      for (const [at, seconds] of [5, 60].entries())
        peer.publish("t", String(at), { qos: 1, id: at + 1, properties: [[P.expiry, seconds]] });
      await peer.next("PUBACK");
      await peer.next("PUBACK");
      const store = rig.store.crash();
      store.timeMs = rig.store.timeMs + 10_000;
      await withRig(
        async (after) => {
          expect(await (await joined(after, "away", kept)).says()).to.deep.equal(["PUBLISH q1 t=1 2:50"]);
        },
        { store },
      )();
    }),
  );

  it(
    "[MQTT-3.3.2-5] without it a message does not expire",
    withRig(async (rig) => {
      const away = await joined(rig, "away", kept);
      await away.subscribe("t", 1);
      await away.drop();
      (await joined(rig)).publish("t", "x", { qos: 1, id: 1 });
      await away.hex();
      rig.advance(3500_000);
      expect(await (await joined(rig, "away", kept)).says()).to.deep.equal(["PUBLISH q1 t=x"]);
    }),
  );
});
