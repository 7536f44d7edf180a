import { expect } from "chai";
import type { Packet } from "mqtt-packet";
import {
  connectPacket,
  durable,
  Rig,
  type TestClient,
  text,
  turns,
  type Version,
  versions,
} from "../helpers/brokerRig.ts";
import { ScramClient, testUser } from "../helpers/testUsers.ts";
import { until } from "../helpers/wait.ts";

const users = [testUser("ann", "pencil"), testUser("bob", "crayon")];
const word = (username: string, password: string) => ({ username, password: Buffer.from(password) });
const ann = word("ann", "pencil");
const bob = word("bob", "crayon");

/** CONNACK codes: MQTT 5, 3.1.1. */
const codes = { bad: [0x86, 4], notAuthorized: [0x87, 5], busy: [0x89, 3] } as const;
const code = (version: Version, name: keyof typeof codes): number => codes[name][version === 5 ? 0 : 1];

async function refused(rig: Rig, version: Version, more: object, clientId = "x"): Promise<number> {
  const client = rig.open(version);
  client.send(connectPacket(version, clientId, more));
  let refusal: number | undefined;
  const told = client.connack().then((connack) => {
    refusal = connack.code;
  });
  await until("an answer", async () => {
    rig.clock.advance(100); // refusals come late
    await turns(2);
    return refusal !== undefined;
  });
  await told;
  await client.gone();
  return refusal ?? -1;
}

for (const version of versions) {
  describe(`log-in, MQTT ${version}`, () => {
    let rig: Rig;
    afterEach(() => rig.close());

    it("lets the right password in, and nobody else [MQTT-3.1.4-2]", async () => {
      rig = new Rig({ anonymous: false, users });
      await rig.client(version, "a", ann);
      expect(await refused(rig, version, word("ann", "crayon"))).to.equal(code(version, "bad"));
      expect(await refused(rig, version, word("nobody", "pencil"))).to.equal(code(version, "bad"));
      expect(await refused(rig, version, { username: "ann" })).to.equal(code(version, "bad"));
      expect(await refused(rig, version, word("", "pencil"))).to.equal(code(version, "bad"));
      expect(await refused(rig, version, word("ANN", "pencil"))).to.equal(code(version, "bad"));
      expect(await refused(rig, version, {})).to.equal(code(version, "notAuthorized"));
      expect(rig.meter.expose()).to.contain('tidegate_mqtt_refused_total{reason="auth"} 6');
    });

    it("a wrong password is wrong where the anonymous may come in, too", async () => {
      rig = new Rig({ users });
      await rig.client(version, "a");
      expect(await refused(rig, version, word("ann", "crayon"))).to.equal(code(version, "bad"));
    });

    it("without any users, names are not looked at where the anonymous may come in, and nowhere else", async () => {
      rig = new Rig({ rules: [{ effect: "allow", action: "all", users: ["ann"], topic: "#" }] });
      const client = await rig.client(version, "a", ann);
      expect(await client.subscribe("t")).to.deep.equal([version === 5 ? 0x87 : 0x80]); // nobody has shown to be ann
      rig.broker.setAccess({ anonymous: false, users: [], rules: [] });
      await client.gone();
      expect(await refused(rig, version, ann)).to.equal(code(version, "bad"));
    });

    it("reads nothing more until it knows who it is, and loses nothing", async () => {
      const ends: Array<() => void> = [];
      rig = new Rig({ users, verify: (_kept, _password, settled) => ends.push(() => settled(true)) });
      const other = await rig.client(version, "other");
      await other.subscribe("#");
      const client = rig.open(version);
      client.send(connectPacket(version, "a", ann));
      client.publish("t", "early"); // [MQTT-3.1.4-5]
      client.send({ cmd: "pingreq" });
      expect(await other.take()).to.deep.equal([]);
      ends[0]?.();
      expect((await client.connack()).code).to.equal(0);
      await client.next("pingresp");
      expect(text(await other.next("publish"))).to.equal("early");
    });

    it("takes nothing of what follows a refused CONNECT [MQTT-3.1.4-6]", async () => {
      rig = new Rig({ users });
      const other = await rig.client(version, "other");
      await other.subscribe("#");
      const client = rig.open(version);
      client.send(connectPacket(version, "a", word("ann", "wrong")));
      client.publish("t", "forbidden");
      await until("the refusal", async () => {
        rig.clock.advance(100);
        await turns(2);
        return client.closed;
      });
      expect(await other.take()).to.deep.equal([]);
    });

    it("the time for CONNECT goes on, and who left meanwhile is forgotten", async () => {
      const ends: Array<() => void> = [];
      rig = new Rig({ users, verify: (_kept, _password, settled) => ends.push(() => settled(true)) });
      const late = rig.open(version);
      late.send(connectPacket(version, "late", ann));
      await turns();
      rig.advance(11_000);
      await late.gone();
      ends[0]?.();
      await turns();
      expect(rig.broker.stats()).to.include({ connections: 0, sessions: 0 });
    });

    it("tells who comes while too many wait to come later", async () => {
      rig = new Rig({ users, verify: () => {} });
      const clients = Array.from({ length: 40 }, (_, at) => {
        const client = rig.open(version);
        client.send(connectPacket(version, `c${at}`, ann));
        return client;
      });
      await turns();
      const told = clients.filter((client) => client.received.length > 0);
      expect(told).to.have.length(40 - 33);
      expect((await told[0]?.connack())?.code).to.equal(code(version, "busy"));
      expect(rig.meter.expose()).to.contain('tidegate_mqtt_refused_total{reason="log-ins"} 7');
    });

    it("comes back without hashing, but not with another password", async () => {
      let hashed = 0;
      rig = new Rig({
        users,
        verify: (_kept, password, settled) => {
          hashed += 1;
          settled(Buffer.from(password ?? "").toString() === "pencil");
        },
      });
      for (let at = 0; at < 5; at += 1) await rig.client(version, `c${at}`, ann);
      expect(hashed).to.equal(1);
      expect(await refused(rig, version, word("ann", "pencil "))).to.equal(code(version, "bad"));
      expect(hashed).to.equal(2);
    });

    it("a certificate's name is the user; with another name it needs a password", async () => {
      rig = new Rig({
        ...{ anonymous: false, users },
        rules: [{ effect: "allow", action: "all", users: ["dev1"], topic: "dev1/%u" }],
      });
      const peer = { listener: "tls", certified: true, certificateName: "dev1" };
      const connect = (more: object): TestClient => {
        const client = rig.open(version, undefined, peer);
        client.send(connectPacket(version, "c", more));
        return client;
      };
      const plain = connect({});
      expect((await plain.connack()).code).to.equal(0);
      expect(await plain.subscribe("dev1/dev1")).to.deep.equal([0]);
      expect((await connect({ username: "dev1" }).connack()).code).to.equal(0);
      const wrong = connect(word("bob", "pencil"));
      const told = wrong.connack();
      await until("the refusal", async () => {
        rig.clock.advance(100);
        await turns(2);
        return wrong.closed;
      });
      expect((await told).code).to.equal(code(version, "bad"));
    });

    it("a name without a certificate is no certificate", async () => {
      rig = new Rig({ anonymous: false, users });
      const client = rig.open(version, undefined, { listener: "tls", certified: false, certificateName: "ann" });
      client.send(connectPacket(version, "c"));
      expect((await client.connack()).code).to.equal(code(version, "notAuthorized"));
    });
  });

  describe(`whose session it is, MQTT ${version}`, () => {
    let rig: Rig;
    beforeEach(() => {
      rig = new Rig({ users });
    });
    afterEach(() => rig.close());

    it("while its user is connected, another one does not get the client id", async () => {
      const first = await rig.client(version, "a", ann);
      expect(await refused(rig, version, bob, "a")).to.equal(code(version, "notAuthorized"));
      expect(await refused(rig, version, {}, "a")).to.equal(code(version, "notAuthorized"));
      first.send({ cmd: "pingreq" });
      await first.next("pingresp");
      await rig.client(version, "a", ann); // itself it may take over [MQTT-3.1.4-3]
      await first.gone();
    });

    for (const clean of [true, false]) {
      it(`afterwards nothing of it is handed over (clean ${clean})`, async () => {
        const first = await rig.client(version, "a", { ...durable(version), ...ann });
        await first.subscribe("secret", 1);
        first.drop();
        await turns();
        const publisher = await rig.client(version, "p");
        publisher.publish("secret", "for ann", 1);
        await publisher.next("puback");
        const second = rig.open(version);
        second.send(connectPacket(version, "a", { ...durable(version), clean, ...bob }));
        expect(await second.connack()).to.include({ code: 0, sessionPresent: false });
        publisher.publish("secret", "again", 1);
        await publisher.next("puback");
        expect(await second.take()).to.deep.equal([]);
      });
    }

    it("a session of the anonymous one is anybody's", async () => {
      const first = await rig.client(version, "a", durable(version));
      await first.subscribe("t", 1);
      first.drop();
      await turns();
      const second = rig.open(version);
      second.send(connectPacket(version, "a", { ...durable(version), ...ann }));
      expect(await second.connack()).to.include({ code: 0, sessionPresent: true });
    });

    it("is remembered over a restart", async () => {
      const first = await rig.client(version, "a", { ...durable(version), ...ann });
      await first.subscribe("t", 1);
      await rig.close();
      const { store } = rig;
      rig = new Rig({ users, store });
      const second = rig.open(version);
      second.send(connectPacket(version, "a", { ...durable(version), ...bob }));
      expect((await second.connack()).sessionPresent).to.equal(false);
      await rig.close();
      rig = new Rig({ users, store });
      const third = rig.open(version);
      third.send(connectPacket(version, "a", { ...durable(version), ...bob }));
      expect((await third.connack()).sessionPresent).to.equal(true);
    });
  });
}

describe("enhanced authentication, MQTT 5 section 4.12", () => {
  let rig: Rig;
  beforeEach(() => {
    rig = new Rig({ anonymous: false, users });
  });
  afterEach(() => rig.close());

  const method = "SCRAM-SHA-256";
  const withData = (authenticationData: Buffer | undefined, authenticationMethod = method) => ({
    properties: { authenticationMethod, ...(authenticationData === undefined ? {} : { authenticationData }) },
  });
  const auth = (reasonCode: number, data?: Buffer, of = method): Packet =>
    ({ cmd: "auth", reasonCode, ...withData(data, of) }) as Packet;
  const dataOf = (packet: { properties?: object }): Buffer => {
    const { authenticationMethod, authenticationData } = packet.properties as Record<string, unknown>;
    expect(authenticationMethod).to.equal(method); // [MQTT-4.12.0-5]
    return authenticationData as Buffer;
  };

  /** Up to the server's challenge. */
  async function begun(scram: ScramClient, more: object = {}): Promise<{ client: TestClient; challenge: Buffer }> {
    const client = rig.open(5);
    client.send(connectPacket(5, "a", { ...withData(scram.first()), ...more }));
    const challenge = await client.next("auth");
    expect(challenge.reasonCode).to.equal(0x18); // [MQTT-4.12.0-2]
    return { client, challenge: dataOf(challenge) };
  }

  async function connected(name = "ann", password = "pencil"): Promise<TestClient> {
    const scram = new ScramClient(name, password);
    const { client, challenge } = await begun(scram);
    client.send(auth(0x18, scram.final(challenge)));
    const { code: reasonCode, properties } = await client.connack();
    expect(reasonCode).to.equal(0);
    expect(dataOf({ properties }).toString()).to.equal(scram.expected);
    return client;
  }

  async function ending(client: TestClient): Promise<void> {
    await until("the end", async () => {
      rig.clock.advance(100);
      await turns(2);
      return client.closed;
    });
  }

  it("SCRAM-SHA-256 lets in who proves to know the password, and its user is who that is", async () => {
    rig.broker.setAccess({
      ...{ anonymous: false, users },
      rules: [{ effect: "allow", action: "all", users: ["ann"], topic: "%u/#" }],
    });
    const client = await connected();
    expect(await client.subscribe("ann/#")).to.deep.equal([0]);
  });

  it("asks for the first message when CONNECT has none", async () => {
    const scram = new ScramClient("ann", "pencil");
    const client = rig.open(5);
    client.send(connectPacket(5, "a", withData(undefined)));
    expect(dataOf(await client.next("auth"))).to.equal(undefined);
    client.send(auth(0x18, scram.first()));
    client.send(auth(0x18, scram.final(dataOf(await client.next("auth")))));
    expect((await client.connack()).code).to.equal(0);
  });

  it("refuses an unknown method with 0x8C [MQTT-4.12.0-1]", async () => {
    for (const other of ["SCRAM", "SCRAM-SHA-256-PLUS", "scram-sha-256", "PLAIN", ""]) {
      const client = rig.open(5);
      client.send(connectPacket(5, "a", { ...withData(Buffer.from("n,,n=ann,r=x"), other), ...ann }));
      expect((await client.connack()).code, other).to.equal(0x8c);
      await client.gone();
    }
  });

  for (const [who, name] of [
    ["a wrong password", "ann"],
    ["a user that does not exist", "nobody"],
  ] as const) {
    it(`refuses ${who} with 0x86, and late if it is not the first time [MQTT-4.12.0-4]`, async () => {
      for (const late of [false, true]) {
        const scram = new ScramClient(name, "wrong");
        const { client, challenge } = await begun(scram);
        client.send(auth(0x18, scram.final(challenge)));
        await turns();
        expect(client.closed).to.equal(!late);
        await ending(client);
        expect(client.received.map(({ cmd }) => cmd)).to.deep.equal(["connack"]);
        expect((await client.connack()).code).to.equal(0x86);
      }
    });
  }

  it("refuses a first message that is none with 0x87", async () => {
    const client = rig.open(5);
    client.send(connectPacket(5, "a", withData(Buffer.from("p=tls-unique,,n=ann,r=x"))));
    expect((await client.connack()).code).to.equal(0x87);
    await client.gone();
  });

  for (const [what, packet] of [
    ["PINGREQ", { cmd: "pingreq" }],
    ["SUBSCRIBE", { cmd: "subscribe", messageId: 1, subscriptions: [{ topic: "a", qos: 0 }] }],
    ["PUBLISH", { cmd: "publish", topic: "a", payload: "x", qos: 0, dup: false, retain: false }],
    ["CONNECT", connectPacket(5, "a")],
    ["AUTH 0x19", auth(0x19, Buffer.from("n,,n=ann,r=x"))],
  ] as Array<[string, Packet]>) {
    it(`${what} during the exchange ends it [MQTT-3.1.2-30]`, async () => {
      const { client } = await begun(new ScramClient("ann", "pencil"));
      client.send(packet);
      await client.gone();
      expect(client.received.some(({ cmd }) => cmd !== "connack" && cmd !== "disconnect")).to.equal(false);
      expect(rig.broker.stats().connections).to.equal(0);
    });
  }

  it("AUTH with another method during the exchange is refused with 0x8C [MQTT-4.12.0-5]", async () => {
    const { client, challenge } = await begun(new ScramClient("ann", "pencil"));
    client.send(auth(0x18, challenge, "OTHER"));
    expect((await client.connack()).code).to.equal(0x8c);
    await client.gone();
  });

  it("DISCONNECT during the exchange ends it quietly", async () => {
    const { client } = await begun(new ScramClient("ann", "pencil"));
    client.send({ cmd: "disconnect", reasonCode: 0 });
    await client.gone();
    expect(client.received).to.deep.equal([]);
  });

  it("a client that does not take a packet as large as the challenge is not left waiting for it [MQTT-3.1.2-24]", async () => {
    const client = rig.open(5);
    const { properties } = withData(new ScramClient("ann", "pencil").first());
    client.send(connectPacket(5, "a", { properties: { ...properties, maximumPacketSize: 60 } }));
    await client.gone();
    expect(client.received).to.deep.equal([]);
  });

  it("has the time of CONNECT, no more", async () => {
    const { client } = await begun(new ScramClient("ann", "pencil"));
    rig.advance(11_000);
    await client.gone();
  });

  it("AUTH without a method in CONNECT is a protocol error, and we never send it then [MQTT-4.12.0-6, -7]", async () => {
    const client = await rig.client(5, "a", ann);
    expect(client.received.some(({ cmd }) => cmd === "auth")).to.equal(false);
    client.send(auth(0x19, new ScramClient("ann", "pencil").first()));
    expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
    await client.gone();
  });

  describe("re-authentication, section 4.12.1", () => {
    it("succeeds with AUTH 0x00 and the server's proof, while other packets go on", async () => {
      const client = await connected();
      const scram = new ScramClient("ann", "pencil");
      client.send(auth(0x19, scram.first()));
      const challenge = await client.next("auth");
      expect(challenge.reasonCode).to.equal(0x18);
      client.send({ cmd: "pingreq" });
      await client.next("pingresp");
      expect(await client.subscribe("t")).to.deep.equal([0]);
      client.send(auth(0x18, scram.final(dataOf(challenge))));
      const done = await client.next("auth");
      expect(done.reasonCode).to.equal(0);
      expect(dataOf(done).toString()).to.equal(scram.expected);
      client.send({ cmd: "pingreq" });
      await client.next("pingresp");
    });

    it("that fails ends the connection with 0x87 [MQTT-4.12.1-2]", async () => {
      const client = await connected();
      const scram = new ScramClient("ann", "wrong");
      client.send(auth(0x19, scram.first()));
      client.send(auth(0x18, scram.final(dataOf(await client.next("auth")))));
      await ending(client);
      expect((await client.next("disconnect")).reasonCode).to.equal(0x87);
    });

    it("as another user fails: the session is not his", async () => {
      const client = await connected();
      const scram = new ScramClient("bob", "crayon");
      client.send(auth(0x19, scram.first()));
      client.send(auth(0x18, scram.final(dataOf(await client.next("auth")))));
      expect((await client.next("disconnect")).reasonCode).to.equal(0x87);
    });

    for (const [what, packets] of [
      ["another method [MQTT-4.12.1-1]", [auth(0x19, Buffer.from("n,,n=ann,r=x"), "OTHER")]],
      ["AUTH that continues nothing", [auth(0x18, Buffer.from("x"))]],
      ["a second one meanwhile", [auth(0x19, Buffer.from("n,,n=ann,r=x")), auth(0x19, Buffer.from("n,,n=ann,r=x"))]],
    ] as const) {
      it(`${what} is a protocol error`, async () => {
        const client = await connected();
        for (const packet of packets) client.send(packet);
        expect((await client.next("disconnect")).reasonCode).to.equal(0x82);
        await client.gone();
      });
    }
  });
});
