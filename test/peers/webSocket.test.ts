import { needPeers } from "../helpers/peers.ts";
import { pahoC, pahoCs } from "./clients/pahoC.ts";
import { mqttJs, pahoPython } from "./clients/scripted.ts";
import { flows, versions } from "./flows.ts";
import { PeerGateway } from "./peerGateway.ts";

for (const scheme of ["ws", "wss"] as const) {
  describe(`peer: client libraries over ${scheme}`, function () {
    this.timeout(60_000);
    let gateway: PeerGateway;
    before(async function () {
      needPeers(this, "openssl");
      gateway = await PeerGateway.start([scheme]);
    });
    after(() => gateway?.remove());

    for (const kit of [mqttJs, pahoPython, pahoC, pahoCs].filter(({ schemes }) => schemes.includes(scheme))) {
      for (const version of versions) {
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
