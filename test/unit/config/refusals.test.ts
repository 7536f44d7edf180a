import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { makeUser } from "../../../src/base/passwords.ts";
import { loadConfig, type Problem } from "../../../src/config/load.ts";
import { usersText } from "../../../src/config/usersFile.ts";
import { accepted, places, problemsOf, refuses } from "./helpers.ts";

const tls = "tls: { cert: c, key: k, ca: a, clientCert: ";

async function warningsOf(text: string): Promise<Problem[]> {
  const result = await loadConfig({ text, env: {}, hostname: "h" });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.warnings;
}

async function unavailableIn(text: string): Promise<string[]> {
  const result = await loadConfig({ text, env: {}, hostname: "h" });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.unavailable.map(({ line, column, path, message }) => `${line}:${column} ${path} ${message}`);
}

describe("config: listeners that are open to the network", () => {
  for (const url of [
    "mqtt://0.0.0.0:1883",
    "'mqtt://[::]:1883'",
    "mqtt://192.168.1.5",
    "ws://0.0.0.0/mqtt",
    "mqtt://gateway.local",
  ]) {
    it(`refuses ${url} without a word on who may come in`, async () => {
      await refuses(`mqtt: { listeners: [{ url: ${url} }] }`, "mqtt.listeners[0].url", '"access: { anonymous: true }"');
      await accepted(`mqtt: { listeners: [{ url: ${url} }] }\naccess: { anonymous: true }`);
    });
  }

  it("takes required client certificates for an answer, optional ones not", async () => {
    await accepted(`mqtt: { listeners: [{ url: mqtts://0.0.0.0, ${tls} required } }] }`);
    await refuses(
      `mqtt: { listeners: [{ url: mqtts://0.0.0.0, ${tls} optional } }] }`,
      "mqtt.listeners[0].url",
      "clientCert: required",
    );
  });

  it("takes anonymous: false for no answer", async () => {
    await refuses(
      "mqtt: { listeners: [{ url: mqtt://0.0.0.0 }] }\naccess: { anonymous: false }",
      "mqtt.listeners[0].url",
      "open to",
    );
  });

  it("takes a users file with somebody in it for an answer", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    try {
      const text = "mqtt: { listeners: [{ url: mqtt://0.0.0.0 }] }\naccess: { usersFile: users.yaml }";
      const path = join(folder, "tidegate.yaml");
      expect(places(await problemsOf(text, { path }))).to.deep.equal(["1:28 mqtt.listeners[0].url"]);
      writeFileSync(join(folder, "users.yaml"), "# nobody yet\n");
      expect(places(await problemsOf(text, { path }))).to.deep.equal(["1:28 mqtt.listeners[0].url"]);
      writeFileSync(join(folder, "users.yaml"), usersText([await makeUser("admin", "x")]));
      expect((await accepted(text, { path })).access.anonymous).to.equal(false);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("takes a local address behind a balancer for an open one, and its clients for no local ones", async () => {
    const listeners = (more: string) => `mqtt: { listeners: [{ url: unix:///x, proxyProtocol: ${more} }] }`;
    await refuses(listeners("true"), "mqtt.listeners[0].url", '"proxyProtocol: false"');
    expect((await accepted(listeners("false"))).access.anonymous).to.equal(true);
    await accepted(`${listeners("true")}\naccess: { anonymous: true }`);
  });

  it("names wss for a WebSocket listener", async () => {
    await refuses("mqtt: { listeners: [{ url: ws://0.0.0.0/mqtt }] }", "mqtt.listeners[0].url", '"url: wss://...');
    await accepted(`mqtt: { listeners: [{ url: wss://0.0.0.0, ${tls} required } }] }`);
  });

  it("asks the same of http", async () => {
    await refuses("http: { listen: http://0.0.0.0:8080 }", "http.listen", '"listen: http://127.0.0.1:8080"');
  });
});

describe("config: warnings", () => {
  it("adds up the caps", async () => {
    const sum = "storage: { maxBytes: 64 MiB }\nuplinks: [{ name: a, url: mqtt://h, queue: { maxBytes: 1 GiB } }]";
    const [warning] = await warningsOf(sum);
    expect(`${warning?.line}:${warning?.column} ${warning?.path}`).to.equal("1:22 storage.maxBytes");
    expect(warning?.message).to.contain("1104 MiB together, storage.maxBytes is 64 MiB (uplinks[0] 1 GiB");
    expect(await warningsOf("")).to.deep.equal([]);
  });

  it("says that dead letters get a quarter of the store at most, where the file asks for more", async () => {
    const text = "storage: { maxBytes: 64 MiB }\ndeadLetters: { maxBytes: 32 MiB }";
    const [warning] = (await warningsOf(text)).filter(({ path }) => path === "deadLetters.maxBytes");
    expect(warning?.message).to.equal("dead letters get 16 MiB: a quarter of storage.maxBytes at most");
    const fits = await warningsOf("storage: { maxBytes: 64 MiB }\ndeadLetters: { maxBytes: 16 MiB }");
    expect(fits.map(({ path }) => path)).to.not.include("deadLetters.maxBytes");
  });

  it("says that CoAP without DTLS asks nobody, that nobody can connect, that two uplinks are one", async () => {
    const coap = (host: string) => `sources: [{ name: f, type: coap-server, listen: coap://${host}, topic: f }]`;
    expect(places(await warningsOf(coap("0.0.0.0")))).to.deep.equal(["1:49 sources[0].listen"]);
    expect(await warningsOf(coap("127.0.0.1"))).to.deep.equal([]);
    expect(places(await warningsOf("access: { anonymous: false }"))).to.deep.equal(["1:22 access.anonymous"]);
    const twins =
      "uplinks: [{ name: a, url: mqtt://h, forward: [{ topic: a }] }, { name: b, url: mqtt://h, forward: [{ topic: b }] }]\nstorage: { maxBytes: 2 GiB }";
    expect((await warningsOf(twins))[0]?.message).to.contain("uplinks[0]");
  });
});

describe("config: what is not available yet", () => {
  it("lists what the documented example asks for", async () => {
    const result = await loadConfig({
      path: join(import.meta.dirname, "contract-example.yaml"),
      env: { CLOUD_PASSWORD: "x" },
    });
    expect(result.ok && places(result.unavailable)).to.deep.equal([
      "95:14 routes[0].steps[1].map",
      "96:19 routes[0].steps[2].validate",
      "97:19 routes[0].steps[3].deadband",
    ]);
    expect(result.ok && result.unavailable.every(({ message }) => message.startsWith("not yet available: "))).to.equal(
      true,
    );
  });

  it("is quiet about defaults, and about what works", async () => {
    const text = `
mqtt:
  listeners:
    - { url: mqtts://127.0.0.1, tls: { cert: c, key: k, sni: { a.example: { cert: c2, key: k2 } } }, proxyProtocol: true }
    - { url: wss://127.0.0.1/mqtt, tls: { cert: c, key: k } }
access: { anonymous: true, rules: [] }
codecs: { a: { type: cbor }, s: { type: struct, fields: [{ name: a, type: u24 }] } }
sources:
  - { name: a, type: serial, path: /dev/x, framing: { type: slip, crc: crc16-modbus, crcEndian: big }, decode: s, topic: a }
  - { name: b, type: coap, url: coap://h/x, every: 30s, decode: hex, topic: b }
routes: [{ name: r, from: a, steps: [{ decode: json }], to: b, onError: dead-letter }]
deadLetters: { maxAge: 90d }
uplinks: [{ name: c, urls: [mqtt://h], envelope: json, forward: [{ topic: "#", qos: 0 }, { topic: a, qos: 2 }], receive: [{ topic: b, to: c, qos: 2 }], drain: { liveShare: 0.2, maxPerSecond: 5 } }]
http: { listen: false }`;
    expect(await unavailableIn(text)).to.deep.equal([]);
    expect(await unavailableIn("")).to.deep.equal([]);
  });

  const source = (keys: string) => `sources: [{ name: s, topic: t, ${keys} }]`;
  const serial = (keys: string) => source(`type: serial, path: /dev/x, ${keys}`);
  const cases: Array<[text: string, path: string]> = [
    ["codecs: { c: { type: csv, columns: [a] } }", "codecs.c.type"],
    ["codecs: { c: { type: senml } }", "codecs.c.type"],
    ["codecs: { c: { type: msgpack } }", "codecs.c.type"],
    ["codecs: { c: { type: protobuf, schema: a.proto, message: A } }", "codecs.c.type"],
    [serial("decode: senml"), "sources[0].decode"],
    [
      serial("decode: json, framing: { type: length, lengthBytes: 1, adjust: -3, start: 7e }"),
      "sources[0].framing.type",
    ],
    [serial("decode: json, framing: { type: fixed, length: 20 }"), "sources[0].framing.type"],
    [serial("decode: json, framing: { type: gap, silence: 5ms }"), "sources[0].framing.type"],
    [serial("decode: json, framing: { type: markers, start: '02', end: '03' }"), "sources[0].framing.type"],
    ["http: { listen: http://0.0.0.0:80 }\naccess: { anonymous: true }", "http.listen"],
  ];
  for (const [text, path] of cases) {
    it(`lists ${path} of ${text.replaceAll("\n", " ").slice(0, 90)}`, async () => {
      expect((await unavailableIn(text)).map((line) => line.split(" ")[1])).to.deep.equal([path]);
    });
  }

  it("lists coaps with its key", async () => {
    const psk = "psk: { identity: a, key: b }";
    const listed = await unavailableIn(source(`type: coap-server, listen: coaps://127.0.0.1, ${psk}`));
    expect(listed.map((line) => line.split(" ")[1])).to.deep.equal(["sources[0].listen", "sources[0].psk"]);
  });
});

describe("config: two doors in one place", () => {
  const coap = (name: string, listen: string) =>
    `{ name: ${name}, type: coap-server, listen: "${listen}", topic: "f/{path}" }`;
  const serial = (name: string, path: string) =>
    `{ name: ${name}, type: serial, path: "${path}", decode: json, topic: a }`;

  it("refuses the dashboard on the address of an MQTT listener", async () => {
    await refuses(
      "http: { listen: http://localhost:1883 }\nmqtt: { listeners: [{ url: mqtt://127.0.0.1 }] }",
      "http.listen",
      "already",
    );
  });

  it("refuses two CoAP servers on one UDP port, which may be that of a TCP listener", async () => {
    const text = `sources: [${coap("a", "coap://127.0.0.1:1883")}, ${coap("b", "coap://127.0.0.1:1883")}]`;
    await refuses(text, "sources[1].listen", "another listener has this address already");
    await accepted(
      `sources: [${coap("a", "coap://127.0.0.1:1883")}, ${coap("b", "coap://127.0.0.1:0")}, ${coap("c", "coap://127.0.0.1:0")}]`,
    );
  });

  it("refuses two serial sources on one port", async () => {
    await refuses(
      `sources: [${serial("a", "/dev/ttyUSB0")}, ${serial("b", "/dev/ttyUSB0")}]`,
      "sources[1].path",
      "one source a port",
    );
    await refuses(
      `sources: [${serial("a", "usb:10C4:ea60")}, ${serial("b", "usb:10c4:EA60")}]`,
      "sources[1].path",
      "one source a port",
    );
    await accepted(`sources: [${serial("a", "/dev/ttyUSB0")}, ${serial("b", "/dev/ttyUSB1")}]`);
  });
});

describe("config: what has no effect", () => {
  it("warns of user properties that MQTT 3.1.1 cannot carry", async () => {
    const uplink = (more: string) =>
      `uplinks: [{ name: a, url: mqtt://h, forward: [{ topic: a }], meta: [gw], ${more} }]`;
    const [warning] = await warningsOf(uplink("version: 4"));
    expect(warning).to.include({ path: "uplinks[0].meta" });
    expect(await warningsOf(uplink("version: 5"))).to.deep.equal([]);
  });

  it("warns of a ca that checks nobody", async () => {
    const listener = (clientCert: string) =>
      `mqtt: { listeners: [{ url: mqtts://127.0.0.1, ${tls} ${clientCert} } }] }`;
    expect((await warningsOf(listener("none"))).map(({ path }) => path)).to.deep.equal(["mqtt.listeners[0].tls.ca"]);
    expect(await warningsOf(listener("optional"))).to.deep.equal([]);
  });
});

describe("config: files that are not UTF-8", () => {
  // As an editor on Windows saves them; replacement characters would make another password of it, and nobody would know.
  const latin1 = (text: string): Buffer => Buffer.from(text, "latin1");

  async function messagesOf(config: Buffer, secret: Buffer): Promise<string[]> {
    const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    try {
      writeFileSync(join(folder, "tidegate.yaml"), config);
      writeFileSync(join(folder, "password"), secret);
      const result = await loadConfig({ path: join(folder, "tidegate.yaml"), env: {}, hostname: "h" });
      return result.ok ? [] : result.problems.map(({ path, message }) => `${path}: ${message}`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  it("refuses them, the config and a file with a secret", async () => {
    const text = "uplinks: [{ name: a, url: mqtt://h, password: { file: password } }]";
    expect(await messagesOf(Buffer.from(text), Buffer.from("gr\u00fcn"))).to.deep.equal([]);
    expect((await messagesOf(Buffer.from(text), latin1("gr\u00fcn")))[0]).to.match(
      /^uplinks\[0\]\.password\.file: not UTF-8 text/,
    );
    expect((await messagesOf(latin1("gateway: { id: gr\u00fcn }"), Buffer.from("x")))[0]).to.match(
      /^: not UTF-8 \(save/,
    );
    expect((await messagesOf(Buffer.from("\ufeffgateway: {}", "utf16le"), Buffer.from("x")))[0]).to.contain(
      "not UTF-8",
    );
  });
});
