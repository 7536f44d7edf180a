import { expect } from "chai";
import { byte, P, type Property, packet, properties, text, u16 } from "./frames.ts";
import { fault, joined, kept, open, type Peer, type Rig, refused, withRig } from "./support.ts";

const samples = new Map<number, Property>([
  [P.payloadFormat, [P.payloadFormat, 1]],
  [P.expiry, [P.expiry, 60]],
  [P.contentType, [P.contentType, "text/plain"]],
  [P.responseTopic, [P.responseTopic, "answer"]],
  [P.correlation, [P.correlation, Buffer.from([1, 2])]],
  [P.subId, [P.subId, 7]],
  [P.sessionExpiry, [P.sessionExpiry, 60]],
  [P.assignedId, [P.assignedId, "id"]],
  [P.serverKeepAlive, [P.serverKeepAlive, 60]],
  [P.authMethod, [P.authMethod, "m"]],
  [P.authData, [P.authData, Buffer.from([1])]],
  [P.requestProblem, [P.requestProblem, 1]],
  [P.willDelay, [P.willDelay, 0]],
  [P.requestResponse, [P.requestResponse, 1]],
  [P.responseInfo, [P.responseInfo, "info"]],
  [P.serverReference, [P.serverReference, "other"]],
  [P.reason, [P.reason, "why"]],
  [P.receiveMaximum, [P.receiveMaximum, 10]],
  [P.aliasMaximum, [P.aliasMaximum, 10]],
  [P.alias, [P.alias, 1]],
  [P.maximumQos, [P.maximumQos, 1]],
  [P.retainAvailable, [P.retainAvailable, 1]],
  [P.user, [P.user, ["a", "b"]]],
  [P.maximumPacket, [P.maximumPacket, 100_000]],
  [P.wildcardAvailable, [P.wildcardAvailable, 1]],
  [P.subIdAvailable, [P.subIdAvailable, 1]],
  [P.sharedAvailable, [P.sharedAvailable, 1]],
]);

const name = (id: number): string => Object.entries(P).find(([, value]) => value === id)?.[0] ?? String(id);

const message = [P.payloadFormat, P.expiry, P.contentType, P.responseTopic, P.correlation, P.user];

interface Place {
  readonly packet: string;
  /** Properties that table 2-4 allows here, from a client. */
  readonly allowed: readonly number[];
  /** In the table, but another statement has its say: tested by name elsewhere. */
  readonly elsewhere?: readonly number[];
  /** `id` is that of a message to be acknowledged. */
  readonly bytes: (list: Uint8Array, id?: number) => Buffer;
  /** Before any of it, where the packet answers something. */
  readonly answersTo?: 1 | 2;
}

const connectTo = (list: Uint8Array, will: boolean): Buffer => {
  const none = properties([]);
  const payload = will ? [list, text("will"), text("w")] : [];
  const head = [text("MQTT"), Buffer.from([5, will ? 6 : 2, 0, 0])];
  return packet(0x10, ...head, will ? none : list, text("placed"), ...payload);
};

const connectProperties = [
  ...[P.sessionExpiry, P.requestProblem, P.requestResponse, P.receiveMaximum, P.aliasMaximum, P.user, P.maximumPacket],
];
const connecting: readonly Place[] = [
  {
    packet: "CONNECT",
    allowed: connectProperties,
    elsewhere: [P.authMethod, P.authData],
    bytes: (list) => connectTo(list, false),
  },
  { packet: "the will", allowed: [...message, P.willDelay], bytes: (list) => connectTo(list, true) },
];

const answer =
  (first: number) =>
  (list: Uint8Array, id = 1): Buffer =>
    packet(first, u16(id), byte(0), list);
const told = [P.reason, P.user];
const later: readonly Place[] = [
  {
    packet: "PUBLISH",
    allowed: [...message, P.alias],
    elsewhere: [P.subId],
    bytes: (list) => packet(0x30, text("placed"), list, Buffer.from("x")),
  },
  { packet: "PUBACK", allowed: told, answersTo: 1, bytes: answer(0x40) },
  { packet: "PUBREC", allowed: told, answersTo: 2, bytes: answer(0x50) },
  { packet: "PUBREL", allowed: told, bytes: answer(0x62) },
  { packet: "PUBCOMP", allowed: told, bytes: answer(0x70) },
  {
    packet: "SUBSCRIBE",
    allowed: [P.subId, P.user],
    bytes: (list) => packet(0x82, u16(2), list, text("s"), byte(0)),
  },
  { packet: "UNSUBSCRIBE", allowed: [P.user], bytes: (list) => packet(0xa2, u16(3), list, text("s")) },
  {
    packet: "DISCONNECT",
    allowed: [P.sessionExpiry, ...told],
    elsewhere: [P.serverReference],
    bytes: (list) => packet(0xe0, byte(0), list),
  },
];

const foreign = ({ allowed, elsewhere = [] }: Place): number[] =>
  [...samples.keys()].filter((id) => !allowed.includes(id) && !elsewhere.includes(id));
const given = (id: number): Property => samples.get(id) as Property;

/** A client, and the id of a message that the broker sent it, if the packet needs one to answer to. */
async function prepared(rig: Rig, { answersTo }: Place): Promise<{ peer: Peer; id: number }> {
  const peer = await joined(rig, "placed", { ...kept, clean: true });
  if (answersTo === undefined) return { peer, id: 1 };
  await peer.subscribe("asked", answersTo);
  peer.publish("asked", "x", { qos: answersTo, id: 9 });
  const { id } = await peer.next("PUBLISH");
  await peer.take();
  return { peer, id };
}

describe("MQTT 5 properties where they do not belong", () => {
  for (const place of connecting) {
    for (const id of foreign(place)) {
      it(
        `[2.2.2.2] [MQTT-4.13.1-1] ${name(id)} in ${place.packet} is a Malformed Packet`,
        withRig((rig) => refused(rig, place.bytes(properties([given(id)])), [0x81])),
      );
    }
  }
  for (const place of later) {
    for (const id of foreign(place)) {
      it(
        `[2.2.2.2] [MQTT-4.13.1-1] ${name(id)} in ${place.packet} is a Malformed Packet`,
        withRig((rig) => fault(rig, place.bytes(properties([given(id)])), [0x81])),
      );
    }
  }
  for (const place of later) {
    it(
      `[2.2.2.2] [MQTT-4.13.1-1] identifiers that there are not, in ${place.packet}: a Malformed Packet`,
      withRig(async (rig) => {
        for (const list of [
          [1, 0],
          [2, 0x04, 0],
          [3, 0x2b, 0, 0],
          [2, 0x7f, 0],
          [3, 0x80, 0x01, 0],
        ])
          await fault(rig, place.bytes(Buffer.from(list)), [0x81]);
      }),
    );
  }
});

describe("MQTT 5 properties where they belong", () => {
  for (const place of connecting) {
    for (const id of place.allowed) {
      it(
        `[MQTT-3.1.4-5] ${name(id)} in ${place.packet} is accepted once${id === P.user ? " and twice" : ", twice is a Protocol Error"}`,
        withRig(async (rig) => {
          const twice = place.bytes(properties([given(id), given(id)]));
          expect(await arrival(rig, place.bytes(properties([given(id)])))).to.equal("CONNACK 00");
          if (id === P.user) expect(await arrival(rig, twice)).to.equal("CONNACK 00");
          else await refused(rig, twice, [0x82]);
        }),
      );
    }
  }
  for (const place of later) {
    for (const id of place.allowed) {
      it(
        `[2.2.2.2] ${name(id)} in ${place.packet} is accepted once${id === P.user ? " and twice" : ", twice is a Protocol Error"}`,
        withRig(async (rig) => {
          const { peer, id: first } = await prepared(rig, place);
          peer.send(place.bytes(properties([given(id)]), first));
          if (place.packet === "DISCONNECT") await peer.gone();
          else await peer.alive();
          expect((await peer.says()).filter((said) => said.startsWith("DISCONNECT"))).to.deep.equal([]);
          const twice = properties([given(id), given(id)]);
          if (id !== P.user) return fault(rig, place.bytes(twice), [0x82], kept);
          const again = await prepared(rig, place);
          again.peer.send(place.bytes(twice, again.id));
          if (place.packet !== "DISCONNECT") await again.peer.alive();
        }),
      );
    }
  }
});

/** Sends bytes on a new connection and tells what comes. */
async function arrival(rig: Rig, bytes: Buffer): Promise<string> {
  const peer = open(rig);
  peer.send(bytes);
  const said = await peer.says();
  await peer.drop();
  return said.join();
}
