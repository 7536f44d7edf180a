/** Wills over the end of the process: every client that was connected has lost its connection, however it came about. */
import { expect } from "chai";
import { GatewayProcess } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { RawClient } from "../helpers/rawClient.ts";

describe("wills over a restart", () => {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    it(`are published after ${signal}, to those that keep a session`, async () => {
      const [port = 0] = await freePorts(1);
      const gateway = await GatewayProcess.create(
        `mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${port}" } ] }\nhttp: { listen: false }\nstorage: { minFreeBytes: 0 }\n`,
      );
      try {
        await gateway.start();
        const open = async (clientId: string, persistent: boolean, more: object = {}): Promise<RawClient> => {
          const client = await RawClient.open({ port, clientId, version: 5, persistent, ...more });
          if (client === undefined) throw new Error("no connection");
          return client;
        };
        const watcher = await open("watcher", true);
        watcher.subscribe("status/+", 1);
        await watcher.take("suback");
        const payload = Buffer.from("offline");
        await open("clean", false, { will: { topic: "status/clean", payload, qos: 1, retain: true } });
        const properties = { willDelayInterval: 1 };
        await open("kept", true, { will: { topic: "status/kept", payload, qos: 2, retain: false, properties } });
        // Once this is durable, so is all that came before it.
        watcher.publish("status/marker", "x", 1, 7);
        await watcher.take("puback");
        const marker = await watcher.take("publish");
        watcher.send({ cmd: "puback", messageId: marker.messageId });
        await gateway.end(signal);
        await gateway.start();
        const again = await open("watcher", true);
        const topics: unknown[] = [];
        while (topics.length < 2) {
          const { topic, payload: text, messageId, dup } = await again.take("publish");
          again.send({ cmd: "puback", messageId });
          if (topic === "status/marker")
            expect(dup).to.equal(true); // its PUBACK was not durable yet
          else topics.push(`${topic} ${text}`);
        }
        expect(topics).to.deep.equal(["status/clean offline", "status/kept offline"]);
        again.send({ cmd: "pingreq" });
        await again.take("pingresp");
        expect(again.packets).to.deep.equal([]);
        await again.disconnect();
      } finally {
        await gateway.remove();
      }
    });
  }
});
