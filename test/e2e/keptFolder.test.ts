import { cpSync, existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { FakeCloud, type SeenPacket } from "../helpers/fakeCloud.ts";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";
import { until } from "../helpers/wait.ts";
import { keptConfig } from "../vectors/stores/keptConfig.ts";

// A gateway's folder of every format that ever shipped: its clients and its cloud come back to today's binary and get what is theirs.

const stores = join(import.meta.dirname, "..", "vectors", "stores");
const formats = readdirSync(stores).filter((name) => existsSync(join(stores, name, "gateway")));
const readings = Array.from({ length: 10 }, (_, index) => `reading ${index + 1}`);
const texts = [...readings, "half done", "last"];

for (const format of formats) {
  describe(`e2e: kept gateway folder of ${format}`, () => {
    let gateway: GatewayProcess;
    let cloud: FakeCloud;
    let port = 0;

    beforeEach(async () => {
      cloud = await FakeCloud.open(5);
      [port = 0] = await freePorts(1);
      gateway = await GatewayProcess.create(keptConfig(port, cloud.port));
      cpSync(join(stores, format, "gateway"), join(gateway.dir, "data"), { recursive: true });
      await gateway.start();
    });
    afterEach(async () => {
      await gateway.remove();
      await cloud.close();
    });

    async function connected(clientId: string, version: 4 | 5, persistent = true): Promise<RawClient> {
      const client = await RawClient.open({ port, clientId, version, persistent });
      expect(client?.sessionPresent, clientId).to.equal(persistent);
      return client!;
    }

    const textOf = ({ payload }: SeenPacket): string => String(payload);

    it("the cloud gets its backlog, in order and numbered", async () => {
      await until("the backlog is there", () => cloud.payloads.length >= texts.length);
      expect(cloud.payloads).to.deep.equal(texts);
      const seqs = cloud.last!.seen("publish").map(({ properties }) => {
        const { userProperties } = properties as { userProperties: { seq: string } };
        return Number(userProperties.seq);
      });
      expect(seqs).to.deep.equal([...seqs].sort((a, b) => a - b));
      expect(new Set(seqs).size).to.equal(texts.length);
    });

    it("a session at QoS 1 gets what waited", async () => {
      const reader = await connected("reader5", 5);
      const got: string[] = [];
      while (got.length < texts.length) {
        const packet = await reader.take("publish");
        got.push(textOf(packet));
        expect(packet.qos).to.equal(1);
        reader.send({ cmd: "puback", messageId: packet.messageId });
      }
      expect(got).to.deep.equal(texts);
      await reader.drop();
    });

    it("a session at QoS 2 goes on where it was: PUBREL for what it had received, the rest once", async () => {
      const reader = await connected("reader4", 4);
      reader.send({ cmd: "pubcomp", messageId: (await reader.take("pubrel")).messageId });
      const got: string[] = [];
      while (got.length < texts.length - 3) {
        const packet = await reader.take("publish");
        got.push(textOf(packet));
        if (packet.qos === 1) reader.send({ cmd: "puback", messageId: packet.messageId });
        else {
          reader.send({ cmd: "pubrec", messageId: packet.messageId });
          const released = await reader.take("pubrel");
          expect(released.messageId).to.equal(packet.messageId);
          reader.send({ cmd: "pubcomp", messageId: packet.messageId });
        }
      }
      expect(got).to.deep.equal(texts.slice(3));
      await reader.drop();
    });

    it("what a publisher sent at QoS 2 is still held: sent again it is not taken twice; retained values are there", async () => {
      const feeder = await connected("feeder", 5);
      feeder.publish("plant/half", "half done", 2, 14, { dup: true });
      await feeder.take("pubrec");
      for (const messageId of [13, 14]) {
        feeder.send({ cmd: "pubrel", messageId });
        expect((await feeder.take("pubcomp")).reasonCode ?? 0, `${messageId} was known`).to.equal(0);
      }
      feeder.publish("plant/end", "end", 1, 15);
      await feeder.take("puback");
      await until("the cloud has the end", () => cloud.payloads.includes("end"));
      expect(cloud.payloads).to.deep.equal([...texts, "end"]);
      const watcher = await connected("watcher", 4, false);
      watcher.subscribe("state/#", 1);
      const found = [await watcher.take("publish"), await watcher.take("publish")];
      expect(found.map((packet) => `${packet.topic} ${textOf(packet)} ${packet.retain}`).sort()).to.deep.equal([
        "state/pump on true",
        "state/valve open true",
      ]);
      await watcher.drop();
      await feeder.drop();
      expect(await gateway.end("SIGTERM")).to.equal(0);
    });
  });
}
