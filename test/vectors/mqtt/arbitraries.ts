import fc from "fast-check";
import type { Packet, ProtocolVersion } from "../../../src/wire/mqtt/packet.ts";

/** Packets that keep every rule, as decoding gives them: nothing undefined, no empty properties. */
export interface Sent {
  version: ProtocolVersion;
  from: "client" | "server";
  packet: Packet;
}

type Loose = Record<string, unknown>;

const text = fc.string({ unit: "binary", maxLength: 12 }).map((value) => value.replaceAll("\0", "\ufeff"));
const topic = fc
  .string({ unit: "binary", minLength: 1, maxLength: 20 })
  .map((value) => value.replaceAll(/[\0+#]/gu, "/"));
const filter = fc.oneof(
  topic,
  fc.constantFrom("#", "+", "+/a/#", "/+", "$SYS/#", "$share/g/#", "$share/gruppe ü/+/b", "$share/g//"),
);
const bytes = fc.uint8Array({ maxLength: 40 }).map((value) => Buffer.from(value));
const u16 = fc.integer({ min: 0, max: 0xffff });
const positive16 = fc.integer({ min: 1, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const qos = fc.constantFrom(0, 1, 2);
const version = fc.constantFrom<ProtocolVersion>(3, 4, 5);
const name = fc.oneof(fc.constantFrom("a", "b", "1", "__proto__", "constructor", ""), text);
const userProperties = fc.array(fc.tuple(name, text), { minLength: 1, maxLength: 5 });

/** Any subset of these, or undefined when it is empty. */
function some(model: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<Loose | undefined> {
  return fc
    .record(model, { requiredKeys: [] })
    .map((value) => (Object.keys(value).length === 0 ? undefined : { ...value }));
}

function withMethod(value: Loose | undefined): Loose | undefined {
  return value?.["authenticationData"] === undefined ? value : { authenticationMethod: "SCRAM", ...value };
}

const messageModel = {
  payloadFormat: fc.constantFrom(0, 1),
  messageExpirySeconds: u32,
  contentType: text,
  responseTopic: topic,
  correlationData: bytes,
  userProperties,
};
const explanation = some({ reasonString: text, userProperties });
const authModel = { authenticationMethod: text, authenticationData: bytes };

const connectProperties = some({
  ...authModel,
  sessionExpirySeconds: u32,
  receiveMaximum: positive16,
  maximumPacketSize: u32.filter((value) => value > 0),
  topicAliasMaximum: u16,
  requestResponseInformation: fc.boolean(),
  requestProblemInformation: fc.boolean(),
  userProperties,
}).map(withMethod);

const connackProperties = some({
  ...authModel,
  sessionExpirySeconds: u32,
  receiveMaximum: positive16,
  maximumQos: fc.constantFrom(0, 1),
  retainAvailable: fc.boolean(),
  maximumPacketSize: u32.filter((value) => value > 0),
  assignedClientId: text,
  topicAliasMaximum: u16,
  reasonString: text,
  wildcardSubscriptionAvailable: fc.boolean(),
  subscriptionIdentifiersAvailable: fc.boolean(),
  sharedSubscriptionAvailable: fc.boolean(),
  serverKeepAliveSeconds: u16,
  responseInformation: text,
  serverReference: text,
  userProperties,
}).map(withMethod);

/** Puts version and sender beside it, takes out what 3.1.1 has not, and what is undefined. */
function sent(of: ProtocolVersion, from: "client" | "server", packet: Loose, only5: readonly string[]): Sent {
  const kept = Object.entries(packet).filter(
    ([key, value]) => value !== undefined && (of === 5 || !only5.includes(key)),
  );
  return { version: of, from, packet: Object.fromEntries(kept) as unknown as Packet };
}

const will = fc.record({ topic, payload: bytes, qos, retain: fc.boolean() });
const connect = fc
  .tuple(
    version,
    fc.record({ clientId: text, clean: fc.boolean(), keepAliveSeconds: u16 }),
    fc.option(fc.tuple(will, some(messageModel), fc.option(u32, { nil: undefined }))),
    fc.record({ username: fc.option(text, { nil: undefined }), password: fc.option(bytes, { nil: undefined }) }),
    connectProperties,
  )
  .map(([of, fields, lastWill, { username, password }, properties]) => {
    const packet: Loose = { kind: "connect", version: of, ...fields, username, properties };
    if (of === 5 || username !== undefined) packet["password"] = password;
    if (lastWill !== null) {
      const [base, willProperties, willDelaySeconds] = lastWill;
      const all = { ...base, properties: willProperties, willDelaySeconds };
      packet["will"] = sent(of, "client", all, ["properties", "willDelaySeconds"]).packet;
    }
    return sent(of, "client", packet, ["properties"]);
  });

const connack = fc
  .tuple(version, fc.boolean(), fc.constantFrom(0, 1, 2, 3), connackProperties)
  .map(([of, present, choice, properties]) => {
    const reasonCode = (of !== 5 ? [0, 1, 4, 5] : [0, 0x80, 0x87, 0x9f])[choice] ?? 0;
    const sessionPresent = present && reasonCode === 0;
    return sent(of, "server", { kind: "connack", sessionPresent, reasonCode, properties }, ["properties"]);
  });

const publish = fc
  .tuple(
    version,
    fc.constantFrom<"client" | "server">("client", "server"),
    fc.record({ dup: fc.boolean(), qos, retain: fc.boolean(), topic, packetId: positive16, payload: bytes }),
    some(messageModel),
    fc.option(fc.tuple(positive16, fc.boolean())),
    fc.option(fc.array(fc.integer({ min: 1, max: 268_435_455 }), { minLength: 1, maxLength: 4 })),
  )
  .map(([of, from, fields, properties, alias, identifiers]) => {
    const packet: Loose = { kind: "publish", ...fields, properties };
    if (fields.qos === 0) Object.assign(packet, { dup: false, packetId: 0 });
    if (alias !== null) packet["topicAlias"] = alias[0];
    if (alias?.[1] === true && of === 5) packet["topic"] = "";
    if (identifiers !== null && from === "server") packet["subscriptionIdentifiers"] = identifiers;
    return sent(of, from, packet, ["properties", "topicAlias", "subscriptionIdentifiers"]);
  });

const ack = fc
  .tuple(
    version,
    fc.constantFrom("puback", "pubrec", "pubrel", "pubcomp"),
    positive16,
    fc.boolean(),
    fc.constantFrom<"client" | "server">("client", "server"),
    explanation,
  )
  .map(([of, kind, packetId, failed, from, properties]) => {
    const failure = kind === "puback" || kind === "pubrec" ? 0x97 : 0x92;
    const reasonCode = failed && of === 5 ? failure : 0;
    return sent(of, from, { kind, packetId, reasonCode, properties }, ["properties"]);
  });

const subscription = fc
  .record({
    filter,
    qos,
    noLocal: fc.boolean(),
    retainAsPublished: fc.boolean(),
    retainHandling: fc.constantFrom(0, 1, 2),
  })
  .map((value) => ({ ...value, noLocal: value.noLocal && !value.filter.startsWith("$share/") }));

const subscribe = fc
  .tuple(
    version,
    positive16,
    fc.array(subscription, { minLength: 1, maxLength: 4 }),
    fc.option(fc.integer({ min: 1, max: 268_435_455 }), { nil: undefined }),
    fc.option(userProperties, { nil: undefined }),
  )
  .map(([of, packetId, wanted, subscriptionIdentifier, pairs]) => {
    const plain = { noLocal: false, retainAsPublished: false, retainHandling: 0 };
    const subscriptions = wanted.map((value) => (of === 5 ? value : { ...value, ...plain }));
    const packet = { kind: "subscribe", packetId, subscriptions, subscriptionIdentifier, userProperties: pairs };
    return sent(of, "client", packet, ["subscriptionIdentifier", "userProperties"]);
  });

const unsubscribe = fc
  .tuple(version, positive16, fc.array(filter, { minLength: 1 }), fc.option(userProperties, { nil: undefined }))
  .map(([of, packetId, filters, pairs]) =>
    sent(of, "client", { kind: "unsubscribe", packetId, filters, userProperties: pairs }, ["userProperties"]),
  );

const suback = fc
  .tuple(version, fc.boolean(), positive16, fc.array(fc.boolean(), { minLength: 1 }), explanation)
  .map(([of, un, packetId, outcomes, properties]) => {
    let reasonCodes = outcomes.map((good) => (good ? 0 : un ? 0x11 : 0x80));
    if (un && of !== 5) reasonCodes = [];
    return sent(of, "server", { kind: un ? "unsuback" : "suback", packetId, reasonCodes, properties }, ["properties"]);
  });

const ping = fc.tuple(version, fc.boolean()).map(([of, answer]) => {
  return sent(of, answer ? "server" : "client", { kind: answer ? "pingresp" : "pingreq" }, []);
});

const disconnect = fc
  .tuple(
    version,
    fc.boolean(),
    some({ reasonString: text, userProperties, serverReference: text, sessionExpirySeconds: u32 }),
  )
  .map(([of, failed, properties]) =>
    sent(of, "client", { kind: "disconnect", reasonCode: failed && of === 5 ? 0x82 : 0, properties }, ["properties"]),
  );

const auth = fc
  .tuple(fc.constantFrom(0x18, 0x19), text, some({ authenticationData: bytes, reasonString: text, userProperties }))
  .map(([reasonCode, authenticationMethod, rest]) => {
    const properties = { authenticationMethod, ...rest };
    return sent(5, "client", { kind: "auth", reasonCode, properties }, []);
  });

export const sentPacket: Record<string, fc.Arbitrary<Sent>> = {
  connect,
  connack,
  publish,
  ack,
  subscribe,
  unsubscribe,
  suback,
  ping,
  disconnect,
  auth,
};

export const anySent: fc.Arbitrary<Sent> = fc.oneof(...Object.values(sentPacket));

/** What one side of a connection sends after CONNECT. */
export const stream = fc.tuple(version, fc.constantFrom<"client" | "server">("client", "server")).chain(([of, from]) =>
  fc.record({
    version: fc.constant(of),
    from: fc.constant(from),
    packets: fc
      .array(anySent, { minLength: 1, maxLength: 25 })
      .map((all) => all.filter((one) => one.version === of && one.from === from && one.packet.kind !== "connect"))
      .filter((all) => all.length > 0)
      .map((all) => all.map((one) => one.packet)),
  }),
);

/** `bytes` with a few of them changed, inserted or taken out. */
export function mutations(original: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const edit = fc.record({
    at: fc.nat({ max: 400 }),
    how: fc.constantFrom("set", "flip", "insert", "remove"),
    byte: fc.oneof(fc.constantFrom(0, 1, 2, 0x23, 0x26, 0x2b, 0x7f, 0x80, 0xff), fc.integer({ min: 0, max: 255 })),
  });
  return fc.tuple(original, fc.array(edit, { minLength: 1, maxLength: 4 })).map(([bytes, edits]) => {
    const list = [...bytes];
    for (const { at, how, byte } of edits) {
      const index = at % Math.max(list.length, 1);
      if (how === "set") list[index] = byte;
      else if (how === "flip") list[index] = (list[index] ?? 0) ^ (1 << (byte & 7));
      else if (how === "insert") list.splice(index, 0, byte);
      else list.splice(index, 1);
    }
    return Buffer.from(list);
  });
}

/** The same packet with a remaining length that fits, so that a changed body is looked into. */
export function withTrueLength(bytes: Buffer): Buffer {
  let body = 1;
  while (body < Math.min(bytes.length, 5) && bytes.readUInt8(body) >= 0x80) body += 1;
  const rest = bytes.subarray(Math.min(body + 1, bytes.length));
  const size: number[] = [];
  for (let left = rest.length; ; left >>= 7) {
    size.push(left >= 0x80 ? (left & 0x7f) | 0x80 : left);
    if (left < 0x80) break;
  }
  return Buffer.concat([bytes.subarray(0, 1), Buffer.from(size), rest]);
}
