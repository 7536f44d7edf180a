import { expect } from "chai";
import fc from "fast-check";
import { parser } from "mqtt-packet";
import { encodePacket } from "../../src/wire/mqtt/encode.ts";
import type { Packet, ProtocolVersion } from "../../src/wire/mqtt/packet.ts";
import { ProtocolError } from "../../src/wire/mqtt/protocolError.ts";
import { anySent, mutations, withTrueLength } from "../vectors/mqtt/arbitraries.ts";
import { ownBytes, readAll } from "../vectors/mqtt/load.ts";

type Loose = Record<string, unknown>;

/** Our packet's meaning in mqtt-packet's words, as far as its parser can express it. */
function inOracleWords(packet: Packet, version: ProtocolVersion): Loose {
  switch (packet.kind) {
    case "connect": {
      const { clientId, clean, keepAliveSeconds: keepalive, username, password } = packet;
      let will: Loose | undefined;
      if (packet.will !== undefined) {
        const { topic, payload, qos, retain, properties, willDelaySeconds } = packet.will;
        will = { topic, payload, qos, retain, properties: oracleProperties({ ...properties, willDelaySeconds }) };
      }
      const properties = oracleProperties(packet.properties);
      return {
        cmd: "connect",
        protocolVersion: packet.version,
        clientId,
        clean,
        keepalive,
        username,
        password,
        will,
        properties,
      };
    }
    case "connack": {
      const { sessionPresent, reasonCode } = packet;
      const code = version === 5 ? { reasonCode } : { returnCode: reasonCode };
      return { cmd: "connack", sessionPresent, ...code, properties: oracleProperties(packet.properties) };
    }
    case "publish": {
      const { dup, qos, retain, topic, payload, packetId, topicAlias, subscriptionIdentifiers } = packet;
      const properties = oracleProperties({ ...packet.properties, topicAlias, subscriptionIdentifiers });
      return {
        cmd: "publish",
        dup,
        qos,
        retain,
        topic,
        payload,
        messageId: qos === 0 ? undefined : packetId,
        properties,
      };
    }
    case "subscribe": {
      const { packetId: messageId, subscriptionIdentifier, userProperties } = packet;
      const subscriptions = packet.subscriptions.map((one) => {
        const { filter: topic, qos, noLocal: nl, retainAsPublished: rap, retainHandling: rh } = one;
        return version === 5 ? { topic, qos, nl, rap, rh } : { topic, qos };
      });
      const subscriptionIdentifiers = subscriptionIdentifier === undefined ? undefined : [subscriptionIdentifier];
      const properties = oracleProperties({ subscriptionIdentifiers, userProperties });
      return { cmd: "subscribe", messageId, subscriptions, properties };
    }
    case "unsubscribe": {
      const { packetId: messageId, filters: unsubscriptions, userProperties } = packet;
      return { cmd: "unsubscribe", messageId, unsubscriptions, properties: oracleProperties({ userProperties }) };
    }
    case "suback":
    case "unsuback": {
      const granted = packet.kind === "unsuback" && version !== 5 ? undefined : packet.reasonCodes;
      const properties = oracleProperties(packet.properties);
      return { cmd: packet.kind, messageId: packet.packetId, granted, properties };
    }
    case "pingreq":
    case "pingresp":
      return { cmd: packet.kind };
    default: {
      const messageId = "packetId" in packet ? packet.packetId : undefined;
      const reasonCode = version === 5 ? packet.reasonCode : undefined;
      return { cmd: packet.kind, messageId, reasonCode, properties: oracleProperties(packet.properties) };
    }
  }
}

const oracleNames: Readonly<Record<string, string>> = {
  payloadFormat: "payloadFormatIndicator",
  messageExpirySeconds: "messageExpiryInterval",
  sessionExpirySeconds: "sessionExpiryInterval",
  subscriptionIdentifiers: "subscriptionIdentifier",
  willDelaySeconds: "willDelayInterval",
  assignedClientId: "assignedClientIdentifier",
  serverKeepAliveSeconds: "serverKeepAlive",
  maximumQos: "maximumQoS",
};

function oracleProperties(values: object | undefined): Loose | undefined {
  const result: Loose = {};
  for (const [name, value] of Object.entries(values ?? {})) {
    if (value === undefined) continue;
    let theirs: unknown = value;
    if (name === "payloadFormat") theirs = value === 1;
    if (name === "subscriptionIdentifiers" && value.length === 1) theirs = value[0];
    if (name === "userProperties") theirs = grouped(value);
    result[oracleNames[name] ?? name] = theirs;
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

/** As mqtt-packet groups them: by name, and an empty value is overwritten by the next one. Sorted pairs, since __proto__ may be a name. */
function grouped(pairs: ReadonlyArray<readonly [string, string]>): unknown {
  const groups = new Map<string, string | string[]>();
  for (const [name, value] of pairs) {
    const earlier = groups.get(name);
    if (earlier === undefined || earlier === "") groups.set(name, value);
    else groups.set(name, Array.isArray(earlier) ? [...earlier, value] : [earlier, value]);
  }
  return [...groups].sort(byName);
}

function byName(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}

/** What mqtt-packet reads, or undefined when it refuses or finds no packet. */
function askOracle(bytes: Buffer, version: ProtocolVersion): Loose | undefined {
  let found: Loose | undefined;
  let failed = false;
  const oracle = parser({ protocolVersion: version });
  oracle.on("packet", (packet) => {
    found = packet as unknown as Loose;
  });
  oracle.on("error", () => {
    failed = true;
  });
  try {
    oracle.parse(bytes);
  } catch {
    return undefined; // it throws on some broken bytes
  }
  return failed ? undefined : found;
}

/** Only the words that `wanted` uses, user properties as sorted pairs. */
function heard(theirs: Loose, wanted: Loose): unknown {
  const picked = Object.fromEntries(Object.keys(wanted).map((key) => [key, theirs[key] ?? undefined]));
  const flat = (value: unknown, key = ""): unknown => {
    if (value instanceof Uint8Array) return Buffer.from(value);
    if (key === "userProperties") return Object.entries(value as object).sort(byName);
    if (Array.isArray(value)) return value.map((inner) => flat(inner));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, flat(inner, name)]));
  };
  return withoutUndefined(flat(picked));
}

function withoutUndefined(value: unknown): unknown {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(withoutUndefined);
  const kept = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutUndefined(inner)]));
}

function compare(bytes: Buffer, version: ProtocolVersion, ours: Packet): boolean {
  const theirs = askOracle(bytes, version);
  if (theirs === undefined) return false;
  const wanted = inOracleWords(ours, version);
  expect(heard(theirs, wanted)).to.deep.equal(withoutUndefined(ownBytes(wanted)));
  return true;
}

describe("MQTT codec against mqtt-packet", () => {
  it("what we write, it reads with the same meaning", () => {
    fc.assert(
      fc.property(anySent, ({ version, packet }) => {
        expect(compare(encodePacket(packet, version), version, packet)).to.equal(true);
      }),
      { numRuns: 800 },
    );
  });

  it("what both accept of mutated bytes means the same", () => {
    let both = 0;
    fc.assert(
      fc.property(anySent, fc.nat(), (sent, seed) => {
        const original = encodePacket(sent.packet, sent.version);
        const connecting = sent.packet.kind === "connect";
        for (const mutated of fc.sample(mutations(fc.constant(original)).map(withTrueLength), { seed, numRuns: 10 })) {
          let ours: Packet | undefined;
          try {
            ours = readAll([mutated], connecting ? undefined : sent.version, sent.from)[0];
          } catch (error) {
            if (error instanceof ProtocolError) continue;
            throw error;
          }
          if (ours !== undefined && compare(mutated, sent.version, ours)) both += 1;
        }
      }),
      { numRuns: 250 },
    );
    expect(both).to.be.above(100); // else it would have compared nothing
  });
});
