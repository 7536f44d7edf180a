import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { readDocument } from "../../../src/config/document.ts";
import { formatProblem, loadConfig } from "../../../src/config/load.ts";
import { nearest } from "../../../src/config/problems.ts";
import { shown } from "../../../src/config/shown.ts";
import { accepted, places, problemsOf, refuses } from "./helpers.ts";

describe("config: problems", () => {
  it("finds every mistake at once, where it stands", async () => {
    const text = `gateway:
  id: a/b
  dataDri: /x
mqtt:
  listeners:
    - url: mqtts://127.0.0.1:8883
  limits:
    outbox: 12 XB
    connectTimeout: 10
    maxInflight: 70000
storage: { commitWindow: 0ms, commitWindow: 1ms }
codecs:
  s:
    type: struct
    fields: [{ name: a, type: u7 }]
sources:
  - { name: x, type: serial, path: /dev/x, decode: jsn, topic: "a/{b" }
  - { name: x, type: coap, url: http://h, decode: json, topic: a }
uplinks:
  - name: c
    password: \${NOT_SET}
    forward:
      - { topic: a/#/b, to: "{nope}", qos: 3 }
`;
    const problems = await problemsOf(text, { path: "conf/tidegate.yaml" });
    expect(places(problems)).to.deep.equal([
      "2:7 gateway.id",
      "3:3 gateway.dataDri",
      "6:7 mqtt.listeners[0].tls",
      "8:13 mqtt.limits.outbox",
      "9:21 mqtt.limits.connectTimeout",
      "10:18 mqtt.limits.maxInflight",
      "11:31 storage.commitWindow",
      "15:31 codecs.s.fields[0].type",
      "17:52 sources[0].decode",
      "17:64 sources[0].topic",
      "18:13 sources[1].name",
      "18:33 sources[1].url",
      "20:5 uplinks[0].url",
      "21:15 uplinks[0].password",
      "23:18 uplinks[0].forward[0].topic",
      "23:29 uplinks[0].forward[0].to",
      "23:44 uplinks[0].forward[0].qos",
    ]);
    expect(formatProblem(problems[4]!)).to.equal(
      "conf/tidegate.yaml:9:21: mqtt.limits.connectTimeout: 10 is not a duration (a number with a unit: 500ms, 10s, 5m, 2h, 7d)",
    );
  });

  it("says where the YAML itself is wrong, without repeating it", async () => {
    for (const [text, place] of [
      ["a: b: c", "1:4"],
      ['gateway:\n  id: "x', "2:9"],
      ["mqtt: {\n  limits: @secret }", "2:11"],
      ["gateway:\n\tid: secret", "2:1"],
      ["a: 1\n---\nb: 2", "2:1"],
      ["uplinks: !secret x", "1:10"],
    ] as const) {
      const problems = await problemsOf(text);
      expect(places(problems), text).to.include(`${place} yaml`);
      expect(problems.map(formatProblem).join()).not.to.contain("secret");
    }
  });

  it("names the nearest known key and the others", async () => {
    const problems = await problemsOf("mqtt: { limits: { maxConections: 5 } }\nuplnks: []");
    expect(problems.map(({ message }) => message.split("?")[0])).to.deep.equal([
      'unknown key "maxConections", did you mean "maxConnections"',
      'unknown key "uplnks", did you mean "uplinks"',
    ]);
    expect(problems[1]?.message).to.contain("allowed: gateway, mqtt, storage");
    expect(nearest("teh", ["then", "the"])).to.equal("the");
    expect(nearest("URL", ["tls", "url"])).to.equal("url");
  });

  it("refuses a key without a value, but for sections", async () => {
    await refuses("gateway:\n  id:\n", "gateway.id", "nothing where a text is expected");
    expect(places(await problemsOf("gateway:\n  id:\n"))).to.deep.equal(["2:3 gateway.id"]);
  });

  const uplink = (keys: string) => `uplinks: [{ name: c, ${keys} }]`;
  const source = (keys: string) => `sources: [{ name: s, topic: t, ${keys} }]`;
  const field = (keys: string) => `codecs: { s: { type: struct, fields: [{ name: a, ${keys} }] } }`;
  const listener = (keys: string) => `mqtt: { listeners: [{ ${keys} }] }`;
  const sni = (names: string) => listener(`url: mqtts://127.0.0.1, tls: { cert: c, key: k, sni: { ${names} } }`);
  const cases: Array<[what: string, text: string, path: string, message: string]> = [
    ["a list where a map belongs", "mqtt: []", "mqtt", "a list where a map is expected"],
    ["a text for the whole file", "hello", "yaml", "a text where a map is expected"],
    ["a number for a text", "gateway: { id: 5 }", "gateway.id", "put it into quotes"],
    [
      "a text for a number",
      "mqtt: { limits: { maxInflight: many } }",
      "mqtt.limits.maxInflight",
      '"many" is not a number',
    ],
    ["a fraction", "mqtt: { limits: { maxInflight: 1.5 } }", "mqtt.limits.maxInflight", "1.5 is out of range"],
    ["a size out of range", "storage: { maxBytes: 1 KiB }", "storage.maxBytes", "out of range (at least 16 MiB)"],
    ["yes for true", "access: { anonymous: yes }", "access.anonymous", "(true or false)"],
    ["a second key", "gateway: { id: a, id: b }", "gateway.id", "given twice"],
    ["__proto__", "gateway: { __proto__: b }", "gateway.__proto__", "not possible as a key"],
    ["an unknown alias", "gateway: { id: *x }", "gateway.id", "no anchor"],
    ["a foreign url", listener("url: amqp://127.0.0.1"), "mqtt.listeners[0].url", "(mqtt://, mqtts://, ws://"],
    ["a listener without url", listener("proxyProtocol: true"), "mqtt.listeners[0].url", "is missing (a url"],
    ["a password in a url", uplink("url: mqtt://u:hunter2@h"), "uplinks[0].url", "do not belong into a url"],
    ["a path of no use", "http: { listen: http://127.0.0.1/x }", "http.listen", "a path is not possible"],
    ["a path of a CoAP server", source("type: coap-server, listen: coap://127.0.0.1/x"), "sources[0].listen", "{path}"],
    ["a query of a WebSocket", listener("url: 'ws://127.0.0.1/mqtt?a=1'"), "mqtt.listeners[0].url", "a ? is not"],
    ["wss without tls", listener("url: wss://127.0.0.1"), "mqtt.listeners[0].tls", "wss:// needs tls"],
    ["ws with tls", listener("url: ws://127.0.0.1, tls: { cert: c, key: k }"), "mqtt.listeners[0].tls", "ws://"],
    ["half a certificate", sni("a.example: { cert: c }"), "mqtt.listeners[0].tls.sni.a.example.key", "is missing"],
    [
      "an address for a name",
      sni("192.0.2.1: { cert: c, key: k }"),
      "mqtt.listeners[0].tls.sni.192.0.2.1",
      "not a name",
    ],
    ["a wildcard inside", sni("a.*.b: { cert: c, key: k }"), "mqtt.listeners[0].tls.sni.a.*.b", "not a name"],
    [
      "a name twice",
      sni("a.example: { cert: c, key: k }, A.example: { cert: c, key: k }"),
      "mqtt.listeners[0].tls.sni.A.example",
      "already",
    ],
    ["tls with mqtt", listener("url: mqtt://127.0.0.1, tls: { cert: c, key: k }"), "mqtt.listeners[0].tls", "mqtt://"],
    [
      "certificates without an authority",
      listener("url: mqtts://127.0.0.1, tls: { cert: c, key: k, clientCert: optional }"),
      "mqtt.listeners[0].tls.ca",
      "authority",
    ],
    [
      "the same listener twice",
      "mqtt: { listeners: [{ url: mqtt://127.0.0.1 }, { url: mqtt://127.0.0.1:1883 }] }",
      "mqtt.listeners[1].url",
      "already",
    ],
    ["a long socket path", listener(`url: unix:///${"x".repeat(110)}`), "mqtt.listeners[0].url", "107 bytes"],
    ["allow and deny", "access: { rules: [{ allow: all, deny: all, topic: a }] }", "access.rules[0]", "both"],
    ["neither allow nor deny", "access: { rules: [{ topic: a }] }", "access.rules[0]", "neither"],
    ["a codec with a built-in name", "codecs: { json: { type: text } }", "codecs.json", "built-in"],
    ["an unknown codec type", "codecs: { a: { type: strukt } }", "codecs.a.type", "struct | cbor"],
    ["a codec without type", "codecs: { a: {} }", "codecs.a.type", "is missing (struct"],
    [
      "auto without Content-Format",
      source("type: coap, url: coap://h, decode: auto"),
      "sources[0].decode",
      "coap-server",
    ],
    ["no codec", source("type: serial, path: /dev/x"), "sources[0].decode", "is missing"],
    [
      "an unknown ack",
      source("type: serial, path: /dev/x, decode: json, ack: nope"),
      "sources[0].ack",
      'no codec "nope"',
    ],
    [
      "an unknown command codec",
      source("type: serial, path: /dev/x, decode: json, commands: { topic: c, encode: nope }"),
      "sources[0].commands.encode",
      "no codec",
    ],
    [
      "a checksum in lines",
      source("type: serial, path: /dev/x, decode: json, framing: { type: lines, crc: crc32 }"),
      "sources[0].framing.crc",
      "line feed",
    ],
    [
      "an unknown checksum",
      source("type: serial, path: /dev/x, decode: json, framing: { type: cobs, crc: crc9 }"),
      "sources[0].framing.crc",
      "crc16-modbus",
    ],
    ["a wrong usb path", source("type: serial, path: 'usb:1:2', decode: json"), "sources[0].path", "usb:VID:PID"],
    [
      "observe and every",
      source("type: coap, url: coap://h, decode: json, observe: true, every: 1s"),
      "sources[0].every",
      "exclude",
    ],
    [
      "neither observe nor every",
      source("type: coap, url: coap://h, decode: json, observe: false"),
      "sources[0].every",
      "is missing",
    ],
    ["coaps without key", source("type: coap, url: coaps://h, decode: json"), "sources[0].psk", "is missing"],
    [
      "a key with coap",
      source("type: coap, url: coap://h, decode: json, psk: { identity: a, key: b }"),
      "sources[0].psk",
      "coap://",
    ],
    ["a capture too many", "routes: [{ name: r, from: a/+, to: 'b/{2}' }]", "routes[0].to", "1 times +"],
    ["{rest} without #", "routes: [{ name: r, from: a/+, to: 'b/{rest}' }]", "routes[0].to", "no #"],
    [
      "a step of two kinds",
      "routes: [{ name: r, from: a, to: b, steps: [{ decode: json, map: x }] }]",
      "routes[0].steps[0]",
      "2 kinds",
    ],
    ["a wildcard in a target", "routes: [{ name: r, from: a, to: b/# }]", "routes[0].to", "must not contain"],
    ["no url", uplink("version: 5"), "uplinks[0].url", "is missing"],
    ["url and urls", uplink("url: mqtt://h, urls: [mqtt://i]"), "uplinks[0].url", "exclude"],
    ["tls without mqtts", uplink("url: mqtt://h, tls: { ca: x }"), "uplinks[0].tls", "not possible with mqtt://"],
    ["cert without key", uplink("url: mqtts://h, tls: { cert: x }"), "uplinks[0].tls.key", "go together"],
    [
      "password without user in 3.1.1",
      uplink("url: mqtt://h, version: 4, password: x"),
      "uplinks[0].username",
      "3.1.1",
    ],
    [
      "a text for a version",
      uplink("url: mqtt://h, version: '5'"),
      "uplinks[0].version",
      "'5' is not possible (5 | 4)",
    ],
    [
      "priority 10",
      uplink("url: mqtt://h, forward: [{ topic: a, priority: 10 }]"),
      "uplinks[0].forward[0].priority",
      "0 to 9",
    ],
    [
      "a name of no value in receive",
      uplink("url: mqtt://h, receive: [{ topic: '{topic}', to: a }]"),
      "uplinks[0].receive[0].topic",
      "({gateway})",
    ],
    ["min above max", uplink("url: mqtt://h, backoff: { min: 2m }"), "uplinks[0].backoff", "above"],
    ["unknown meta", uplink("url: mqtt://h, meta: [seq, sec]"), "uplinks[0].meta[1]", "gw | epoch"],
    ["true for http", "http: { listen: true }", "http.listen", "http://HOST:PORT, or false"],
    ["no fields", "codecs: { s: { type: struct, fields: [] } }", "codecs.s.fields", "is empty"],
    [
      "a field's name with a dot",
      "codecs: { s: { type: struct, fields: [{ name: a.b, type: u8 }] } }",
      "codecs.s.fields[0].name",
      "letters",
    ],
    ["a string without length", field("type: string"), "codecs.s.fields[0].length", "is missing"],
    [
      "rest before the end",
      "codecs: { s: { type: struct, fields: [{ name: a, type: bytes, length: rest }, { name: b, type: u8 }] } }",
      "codecs.s.fields[0].length",
      "last field",
    ],
    ["a length of a number", field("type: u8, length: 2"), "codecs.s.fields[0].length", "not possible with u8"],
    ["scale 0", field("type: u8, scale: 0"), "codecs.s.fields[0].scale", "any other number"],
    ["an enum of floats", field("type: f32, enum: { 1: a }"), "codecs.s.fields[0].enum", "not possible with f32"],
    [
      "an enum value too large",
      field("type: u8, enum: { 256: a }"),
      "codecs.s.fields[0].enum.256",
      "not a value of u8",
    ],
    ["the same name twice in an enum", field("type: u8, enum: { 1: a, 2: a }"), "codecs.s.fields[0].enum.2", "already"],
    ["bits of a signed type", field("type: i8, bits: { a: 0 }"), "codecs.s.fields[0].bits", "not possible with i8"],
    ["a bit outside", field("type: u8, bits: { a: [4, 8] }"), "codecs.s.fields[0].bits.a", "0 to 7"],
    ["bits twice", field("type: u8, bits: { a: [0, 3], b: 3 }"), "codecs.s.fields[0].bits.b", "already"],
    ["scale and bits", field("type: u8, scale: 2, bits: { a: 0 }"), "codecs.s.fields[0]", "more than one"],
    ["a const too large", field("type: u8, const: 300"), "codecs.s.fields[0].const", "not a value of u8"],
    ["a const of no name", field("type: u8, enum: { 1: a }, const: b"), "codecs.s.fields[0].const", "its enum"],
  ];
  for (const [what, text, path, message] of cases) it(`refuses ${what}`, () => refuses(text, path, message));

  it("knows the fields of a struct in a source's topic", async () => {
    const text = (topic: string) =>
      `codecs: { s: { type: struct, fields: [{ name: kind, type: u8 }, { name: f, type: u8, bits: { m: 0 } }] } }
sources: [{ name: x, type: serial, path: usb:0403:6001:A:B, decode: s, topic: "${topic}" }]`;
    await refuses(text("a/{knid}"), "sources[0].topic", "{knid} is no field of the codec (kind, f, source, gateway)");
    await accepted(text("{gateway}/{source}/{kind}/{f.m}"));
  });

  it("never repeats a secret or the environment", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    try {
      writeFileSync(join(folder, "empty"), "\n");
      writeFileSync(join(folder, "long"), "hunter2".repeat(20_000));
      const inner = "$".concat("{PW}");
      const env = `"${inner}"`;
      const texts = [
        "uplinks: [{ name: c, url: mqtt://h, password: { fiel: hunter2 } }]",
        "uplinks: [{ name: c, url: mqtt://h, password: [hunter2] }]",
        "uplinks: [{ name: c, url: mqtt://h, passwort: hunter2 }]",
        "uplinks: [{ name: c, url: mqtt://u:hunter2@h }]",
        "uplinks: [{ name: c, url: 'mqtt://u:hunter2@' }]",
        `uplinks: [{ name: c, url: ${env}, clientId: ${env}, version: ${env}, keepAlive: ${env} }]`,
        `uplinks:\n  - name: c\n    url: mqtt://h\n    version: ${inner}\n    keepAlive: ${inner}`,
        `uplinks: [{ name: c, url: mqtt://h, forward: [{ topic: "${inner}#", to: "{${inner}}" }] }]`,
        `sources: [{ name: "${inner} ", type: ${env} }]`,
        `sources: [{ name: a, type: coap, url: ${env}, decode: ${env}, topic: "{${inner}" }]`,
        `routes: [{ name: ${env}, from: a, to: b }, { name: ${env}, from: a, to: "{1${inner}" }]`,
        `codecs: { s: { type: struct, fields: [{ name: a, type: ${env}, const: ${env} }] } }`,
        `codecs: { s: { type: struct, fields: [{ name: a, type: u8 }] } }\nsources: [{ name: a, type: coap, url: coap://h, decode: s, topic: "{${inner}}" }]`,
        "sources: [{ name: a, type: coap, url: coaps://h, decode: json, topic: t, psk: { identity: a, key: [hunter2] } }]",
        "uplinks: [hunter2]",
        "uplinks: hunter2",
        "a: *hunter2",
        "a: !hunter2 x",
        "a: @hunter2",
        'a: "hunter2',
        "a: {hunter2",
        `uplinks: [{ name: c, url: mqtt://h, password: { file: ${folder}/empty } }]`,
        `uplinks: [{ name: c, url: mqtt://h, password: { file: ${folder}/long } }]`,
        `uplinks: [{ name: c, url: mqtt://h, password: { file: ${folder}/missing } }]`,
        "uplinks: [{ name: c, url: mqtt://h, password: '' }]",
        "uplinks: [{ name: c, url: mqtt://h, password: 1234567 }]",
      ];
      for (const text of texts) {
        const problems = await problemsOf(text, { env: { PW: "hunter2" } });
        expect(problems.length, text).to.be.greaterThan(0);
        expect(problems.map(formatProblem).join("\n"), text).not.to.match(/hunter2|1234567/);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("shows what stands in the file, but not where a secret stands", () => {
    const { root } = readDocument("uplinks: [{ username: user, password: hunter2 }]", "f", {});
    const uplink = root?.nearest(["uplinks", 0]);
    expect(shown(uplink!.get("username")!)).to.equal('"user"');
    expect(shown(uplink!.get("password")!)).to.equal("a text");
  });

  it("keeps control characters of the file out of the terminal", async () => {
    const problems = await problemsOf('gateway: { id: 1, "\\e[2Jx": 1 }\nhttp: { listen: "\u0007" }');
    expect(problems.map(formatProblem).join("")).not.to.match(/\p{Cc}/u);
  });

  it("places all problems of a file that is broken in two ways", async () => {
    const result = await loadConfig({ text: "a: &a [*a]\n", env: {} });
    expect(result.ok).to.equal(false);
  });
});
