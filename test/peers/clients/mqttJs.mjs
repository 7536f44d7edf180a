// MQTT.js as a process: a command a line on stdin, an event a line on stdout, both JSON. scripted.ts is the other end.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { connect } from "mqtt";

const tell = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more })}\n`);
let client;
let release; // of the message that is held back

const given = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

function theirProperties(properties) {
  if (properties === undefined) return undefined;
  const { userProperties, correlationData, messageExpiry, payloadFormat, ...same } = properties;
  const grouped = {};
  for (const [name, value] of userProperties ?? []) grouped[name] = [...(grouped[name] ?? []), value];
  return given({
    ...same,
    userProperties: userProperties && grouped,
    correlationData: correlationData === undefined ? undefined : Buffer.from(correlationData, "hex"),
    messageExpiryInterval: messageExpiry,
    payloadFormatIndicator: payloadFormat === undefined ? undefined : payloadFormat === 1,
  });
}

function ourProperties(properties = {}) {
  const pairs = Object.entries(properties.userProperties ?? {});
  return given({
    userProperties: pairs.flatMap(([name, value]) => [value].flat().map((each) => [name, each])),
    correlationData: properties.correlationData?.toString("hex"),
    responseTopic: properties.responseTopic,
    contentType: properties.contentType,
    messageExpiry: properties.messageExpiryInterval,
    payloadFormat:
      properties.payloadFormatIndicator === undefined ? undefined : Number(properties.payloadFormatIndicator),
  });
}

const commands = {
  connect({ url, ca, version, clientId, persistent, expiry, will, receiveMaximum, topicAliasMaximum }) {
    const five = version === "5";
    const old = version === "3.1" ? { protocolId: "MQIsdp", protocolVersion: 3 } : { protocolVersion: 4 };
    const sessionExpiryInterval = expiry ?? (persistent ? 3600 : undefined);
    client = connect(url, {
      ...{ ...(five ? { protocolVersion: 5 } : old), clean: !persistent, clientId, reconnectPeriod: 0, will },
      ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
      ...(five ? { properties: given({ sessionExpiryInterval, receiveMaximum, topicAliasMaximum }) } : {}),
    });
    client.on("connect", ({ sessionPresent }) => tell("connected", { sessionPresent }));
    client.on("error", (error) => tell("failed", { why: error.message }));
    client.on("disconnect", ({ reasonCode }) => tell("told", { reasonCode }));
    client.on("message", (topic, payload, { qos, retain, properties }) =>
      tell("message", {
        topic,
        payload: payload.toString("latin1"),
        qos,
        retain,
        properties: ourProperties(properties),
      }),
    );
  },
  async subscribe({ filter, qos }) {
    const granted = await client.subscribeAsync(filter, { qos });
    tell("subscribed", { codes: granted.map((each) => each.qos) });
  },
  /** At most 50 unacknowledged: MQTT.js itself has no limit, and a broker's Receive Maximum is one. */
  async publish({ topic, qos, retain = false, payloads, properties }) {
    for (let at = 0; at < payloads.length; at += 50) {
      const some = payloads.slice(at, at + 50);
      const options = { qos, retain, ...given({ properties: theirProperties(properties) }) };
      await Promise.all(some.map((payload) => client.publishAsync(topic, payload, options)));
    }
    tell("published");
  },
  /** The next message is not acknowledged, and MQTT.js reads no further, until `release`. */
  hold() {
    client.handleMessage = (_packet, done) => {
      release = done;
    };
    tell("holding");
  },
  release() {
    client.handleMessage = (_packet, done) => done();
    release?.();
    tell("released");
  },
  async disconnect() {
    await client.endAsync();
    process.exit(0);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...rest } = JSON.parse(line);
  try {
    await commands[name](rest);
  } catch (error) {
    tell("failed", { why: `${name}: ${error.message}` });
  }
}
