/**
 * Makes the gateway folder of a kept format: `npx tsx test/vectors/stores/makeGateway.ts FOLDER`, with dist/ built from the release that wrote the
 * format, and never again afterwards. It leaves FOLDER/gateway, the data folder of a gateway killed with sessions, an exchange of QoS 2 in both
 * directions, retained values and an uplink's backlog; gateway.test.ts says what must come of it.
 */
import { cpSync } from "node:fs";
import { join } from "node:path";
import { GatewayProcess } from "../../helpers/gatewayProcess.ts";
import { freePorts } from "../../helpers/ports.ts";
import { RawClient } from "../../helpers/rawClient.ts";
import { keptConfig } from "./keptConfig.ts";

const [folder] = process.argv.slice(2);
if (folder === undefined) throw new Error("usage: makeGateway.ts FOLDER");
const [port = 0, nobody = 0] = await freePorts(2);
const gateway = await GatewayProcess.create(keptConfig(port, nobody));

async function open(clientId: string, version: 4 | 5, persistent = true): Promise<RawClient> {
  const client = await RawClient.open({ port, clientId, version, persistent });
  if (client === undefined) throw new Error("no gateway");
  return client;
}

try {
  await gateway.start();
  for (const [clientId, version, qos] of [
    ["reader5", 5, 1],
    ["reader4", 4, 2],
  ] as const) {
    const reader = await open(clientId, version);
    reader.subscribe("plant/#", qos);
    await reader.take("suback");
    await reader.disconnect();
  }
  const feeder = await open("feeder", 5);
  for (let number = 1; number <= 10; number += 1) {
    feeder.publish(`plant/${number % 2}`, `reading ${number}`, number % 3 === 0 ? 2 : 1, number);
    if (number % 3 !== 0) await feeder.take("puback");
    else {
      await feeder.take("pubrec");
      feeder.send({ cmd: "pubrel", messageId: number });
      await feeder.take("pubcomp");
    }
  }
  feeder.publish("state/pump", "off", 1, 11, { retain: true });
  feeder.publish("state/pump", "on", 1, 12, { retain: true });
  feeder.publish("state/valve", "open", 2, 13, { retain: true });
  await feeder.take("pubrec");
  feeder.publish("plant/half", "half done", 2, 14);
  await feeder.take("pubrec", ({ messageId }) => messageId === 14); // and no PUBREL: 13 and 14 stay held
  // reader4 takes the first three; of the third, QoS 2, it has answered PUBREC when the power goes.
  const reader = await open("reader4", 4);
  for (let taken = 1; taken <= 3; taken += 1) {
    const { qos, messageId } = await reader.take("publish");
    if (qos === 1) reader.send({ cmd: "puback", messageId });
    else {
      reader.send({ cmd: "pubrec", messageId });
      await reader.take("pubrel");
    }
  }
  feeder.publish("plant/last", "last", 1, 15); // its commit carries what was acknowledged
  await feeder.take("puback", ({ messageId }) => messageId === 15);
  await gateway.end("SIGKILL");
  // Prepared segments are zeros, and the socket is this process's own.
  const kept = (path: string): boolean => !/spare-|control\.sock/.test(path);
  cpSync(join(gateway.dir, "data"), join(folder, "gateway"), { recursive: true, filter: kept });
} finally {
  await gateway.remove();
}
process.exit(0);
