import { expect } from "chai";
import { needPeers, stopPeers } from "../helpers/peers.ts";
import { until } from "../helpers/wait.ts";
import type { Kit } from "./clients/kit.ts";
import { mosquitto } from "./clients/mosquitto.ts";
import { pahoC, pahoCs } from "./clients/pahoC.ts";
import { mqttJs, pahoPython } from "./clients/scripted.ts";
import { allVersions, flows, versions } from "./flows.ts";
import { PeerGateway } from "./peerGateway.ts";

const kits: readonly Kit[] = [mqttJs, mosquitto, pahoPython, pahoC, pahoCs];
const needed = kits.flatMap(({ needs }) => needs);

for (const scheme of ["mqtt", "mqtts"] as const) {
  describe(`peer: client libraries over ${scheme}`, function () {
    this.timeout(180_000);
    let gateway: PeerGateway;
    before(async function () {
      needPeers(this, "openssl");
      gateway = await PeerGateway.start([scheme]);
    });
    after(() => gateway?.remove());

    for (const kit of kits) {
      for (const version of scheme === "mqtt" ? allVersions : versions) {
        describe(`${kit.name}, MQTT ${version}, ${scheme}`, () => {
          before(function () {
            needPeers(this, ...kit.needs);
          });
          flows(() => gateway, kit, version, scheme);
        });
      }
    }
  });
}

describe("peer: every client library to every other, of either version", function () {
  this.timeout(180_000);
  let gateway: PeerGateway;
  before(async function () {
    needPeers(this, "openssl", ...needed);
    gateway = await PeerGateway.start(["mqtt", "mqtts"]);
  });
  after(() => gateway?.remove());
  afterEach(stopPeers);

  for (const qos of [0, 1, 2] as const) {
    it(`QoS ${qos}: 20 messages of each reach each, in order`, async () => {
      const all = kits.flatMap((kit) => versions.map((version) => ({ kit, version })));
      const lines = Array.from({ length: 20 }, (_, n) => `line ${n}`);
      const subscribers = await Promise.all(
        all.map(({ kit, version }, at) =>
          kit.subscribe(gateway.door(at % 2 === 0 ? "mqtt" : "mqtts"), {
            ...{ version, qos: 2, filter: `all/q${qos}/#`, clientId: `all-${qos}-${at}` },
          }),
        ),
      );
      for (const [at, { kit, version }] of all.entries()) {
        await kit.publish(
          gateway.door(at % 2 === 0 ? "mqtts" : "mqtt"),
          { version, qos, topic: `all/q${qos}/${at}` },
          lines,
        );
      }
      for (const [at, subscriber] of subscribers.entries()) {
        const who = `${all[at]?.kit.name} ${all[at]?.version}`;
        await until(`${who} has all of it`, () => subscriber.seen().length >= all.length * lines.length);
        await subscriber.leave();
        for (const [from, { kit }] of all.entries()) {
          const got = subscriber.seen().filter(({ topic }) => topic === `all/q${qos}/${from}`);
          expect(
            got.map(({ payload }) => payload.trimEnd()),
            `${kit.name} to ${who}`,
          ).to.deep.equal(lines);
        }
        expect(subscriber.seen()).to.have.length(all.length * lines.length);
      }
    });
  }
});
