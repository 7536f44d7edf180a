import { expect } from "chai";
import { Echoes } from "../../../src/uplink/echoes.ts";
import { parseRule } from "../../../src/uplink/forwarding.ts";
import { MovedClock } from "../../helpers/memoryUplink.ts";
import { SessionCloud } from "../../helpers/sessionCloud.ts";
import { uplinkOptions } from "./bench.ts";
import { ExactRig } from "./exactRig.ts";

const rule = parseRule('{"filter":"plant/#","to":"gw/{gateway}/{topic}","qos":1}');
const open = (more: object = {}, filters = ["gw/g1/#"]): { echoes: Echoes; clock: MovedClock } => {
  const clock = new MovedClock();
  return { echoes: new Echoes(uplinkOptions({ version: 4, ...more }), filters, clock), clock };
};
const bytes = (text: string): Buffer => Buffer.from(text);

describe("uplink/echoes", () => {
  it("knows each message of ours that comes back, as often as it was sent", () => {
    const { echoes } = open();
    for (const text of ["on", "on", "off"]) echoes.sent(rule, "plant/a", bytes(text));
    const back = ["on", "off", "on", "on", "off"].map((text) => echoes.isOurs("gw/g1/plant/a", bytes(text)));
    expect(back).to.deep.equal([true, true, true, false, false]);
    echoes.sent(rule, "plant/a", bytes("on"));
    expect(echoes.isOurs("gw/g1/plant/b", bytes("on"))).to.equal(false);
    expect(echoes.size).to.equal(1);
  });

  it("remembers nothing that cannot come back, so much, so long, and as long as the session", () => {
    const { echoes } = open({}, ["gw/g1/cmd/#"]);
    echoes.sent(rule, "plant/a", bytes("1"));
    expect(echoes.size).to.equal(0);
    const full = open();
    for (let n = 0; n < 10_050; n += 1) full.echoes.sent(rule, `plant/${n % 5000}`, bytes(String(n)));
    expect(full.echoes.size).to.equal(10_000);
    full.clock.advance(599_000);
    full.echoes.sent(rule, "plant/a", bytes("late"));
    full.clock.advance(2000);
    expect(full.echoes.isOurs("gw/g1/plant/4999", bytes("9999"))).to.equal(false);
    full.echoes.sent(rule, "plant/a", bytes("later"));
    expect(full.echoes.size).to.equal(2);
    full.echoes.forget();
    expect(full.echoes.isOurs("gw/g1/plant/a", bytes("later"))).to.equal(false);
  });

  it("goes by the gateway's name in an envelope, over restarts", () => {
    const { echoes } = open({ envelope: "json" });
    const envelope = (gw: string): Buffer =>
      bytes(`{"gw":"${gw}","epoch":7,"seq":1,"pri":0,"ts":"x","topic":"t","data":1}`);
    expect(echoes.isOurs("gw/g1/a", envelope("g1"))).to.equal(true);
    for (const other of [envelope("g2"), bytes('{"gw":"g1"}'), bytes(""), bytes("1")])
      expect(echoes.isOurs("gw/g1/a", other)).to.equal(false);
  });

  it("has nothing to do with MQTT 5, which has No Local", () => {
    const { echoes } = open({ version: 5 });
    echoes.sent(rule, "plant/a", bytes("1"));
    expect(echoes.isOurs("gw/g1/plant/a", bytes("1"))).to.equal(false);
  });
});

for (const envelope of ["none", "json"] as const)
  describe(`uplink/loops over a 3.1.1 cloud, envelope: ${envelope}`, () => {
    let cloud: SessionCloud;
    const rigs: ExactRig[] = [];
    afterEach(async () => {
      for (const rig of rigs.splice(0)) await rig.close();
      await cloud.close();
    });

    it("ends what comes back, and lets through what others send to the same topic", async () => {
      cloud = await SessionCloud.open(4);
      const { fake } = cloud;
      const publish = fake.script.publish;
      fake.script.publish = (connection, packet) => {
        publish?.(connection, packet);
        connection.publish(packet.topic ?? "", packet.payload ?? "", { qos: 0 }); // a broker without No Local
      };
      const rig = await new ExactRig(cloud, {
        ...{ version: 4 as const, envelope },
        forward: [{ topic: "t/#", to: "up/{rest}", qos: 2, priority: 0, ttlMs: undefined }],
        receive: [{ topic: "up/#", to: "cmd/{rest}", qos: 2, expiryMs: undefined }],
      }).start();
      rigs.push(rig);
      for (const text of ["a", "b"]) await rig.put(text);
      await rig.settled();
      await rig.until("both came back", () => rig.metric("tidegate_uplink_commands_returned_total") === 2);
      fake.last?.publish("up/a", "a", { qos: 0 }); // somebody else's, the very same
      await rig.until("it came", () => rig.metric("tidegate_uplink_commands_total") === 3);
      await rig.until(
        "it is taken",
        () => rig.tap.stats().messages + rig.metric("tidegate_uplink_commands_ignored_total") >= 0,
      );
      expect(rig.metric("tidegate_uplink_commands_returned_total")).to.equal(2);
      expect(cloud.taken).to.have.length(2);
    });
  });
