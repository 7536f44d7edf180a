import { expect } from "chai";
import { P, type Property } from "./frames.ts";
import { propertyOf, type Seen } from "./seen.ts";
import { joined, kept, welcomed, withRig } from "./support.ts";

const call = (topic: string, id: string): readonly Property[] => [
  [P.responseTopic, topic],
  [P.correlation, Buffer.from(id)],
];

describe("MQTT 5 request and response", () => {
  it(
    "[MQTT-3.3.2-15, -16] the text's flow: the responder answers to the Response Topic with the Correlation Data",
    withRig(async (rig) => {
      const responder = await joined(rig, "responder");
      await responder.subscribe("service", 1);
      const requesters = [await joined(rig, "a"), await joined(rig, "b")];
      for (const [at, requester] of requesters.entries()) {
        await requester.subscribe(`reply/${at}`, 1);
        requester.publish("service", "question", { qos: 1, id: 1, properties: call(`reply/${at}`, `id ${at}`) });
        await requester.next("PUBACK");
      }
      for (const request of await responder.publishes(2)) {
        const correlation = propertyOf(request, P.correlation) as Buffer;
        const topic = propertyOf(request, P.responseTopic) as string;
        responder.publish(topic, "answer", { properties: [[P.correlation, correlation]] });
      }
      for (const [at, requester] of requesters.entries()) {
        const [answer] = (await requester.publishes(1)) as [Seen];
        expect(answer.topic).to.equal(`reply/${at}`);
        expect(propertyOf(answer, P.correlation)).to.deep.equal(Buffer.from(`id ${at}`));
      }
    }),
  );

  it(
    "[MQTT-3.3.2-15, -16] every subscriber of a request gets both, also one who was away and one by a retained message",
    withRig(async (rig) => {
      const now = await joined(rig, "now");
      await now.subscribe("service");
      const away = await joined(rig, "away", kept);
      await away.subscribe("service", 2);
      await away.drop();
      const requester = await joined(rig, "r");
      requester.publish("service", "q", { qos: 2, id: 1, retain: true, properties: call("reply", "id") });
      await requester.next("PUBREC");
      const late = await joined(rig, "late");
      await late.subscribe("service");
      for (const peer of [now, await joined(rig, "away", kept), late]) {
        const [got] = await peer.publishes(1);
        expect(got?.properties).to.deep.equal(call("reply", "id"));
      }
    }),
  );

  it(
    "[4.10] Correlation Data without a Response Topic, and the other way round, are passed on",
    withRig(async (rig) => {
      const peer = await joined(rig);
      await peer.subscribe("t");
      for (const property of call("reply", "id")) {
        peer.publish("t", "x", { properties: [property] });
        const [got] = await peer.publishes(1);
        expect(got?.properties).to.deep.equal([property]);
      }
    }),
  );

  it(
    "[MQTT-3.1.2-28] [4.10.1] Response Information comes only where it was asked for",
    withRig(async (rig) => {
      const never = [[], [[P.requestResponse, 0]]] as const;
      for (const [at, list] of never.entries()) {
        const { connack } = await welcomed(rig, `n${at}`, { properties: list });
        expect(propertyOf(connack, P.responseInfo)).to.equal(undefined);
      }
      const { connack } = await welcomed(rig, "asks", { properties: [[P.requestResponse, 1]] });
      expect(["string", "undefined"]).to.include(typeof propertyOf(connack, P.responseInfo));
    }),
  );
});
