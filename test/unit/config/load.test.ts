import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import fc from "fast-check";
import { loadConfig } from "../../../src/config/load.ts";
import { readSecretFile } from "../../../src/config/secrets.ts";
import { accepted, problemsOf } from "./helpers.ts";

const examplePath = join(import.meta.dirname, "contract-example.yaml");

async function example() {
  const result = await loadConfig({ path: examplePath, env: { CLOUD_PASSWORD: "s3cret" }, hostname: "host" });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result;
}

describe("config: loading", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("accepts the documented example", async () => {
    const { config, warnings, file } = await example();
    expect(warnings).to.deep.equal([]);
    expect(file).to.equal(examplePath);
    expect(config.gateway.dataDir).to.equal(join(import.meta.dirname, "data"));
    expect(config.mqtt.listeners[1]?.tls?.cert).to.equal(join(import.meta.dirname, "tls/server.crt"));
    expect(config.mqtt.listeners[3]?.url).to.equal("unix:///run/tidegate/mqtt.sock");
    expect(config.uplinks[0]?.password).to.equal("s3cret");
    expect(config.uplinks[0]?.urls).to.deep.equal(["mqtts://broker.example.com:8883"]);
    expect(config.uplinks[0]?.forward[0]?.ttl).to.equal(7 * 86_400_000);
    expect(config.sources[0]).to.deep.include({ type: "serial", baudRate: 115_200, dataBits: 8, rtscts: false });
    expect(config.sources[1]).to.deep.include({ type: "coap", observe: true });
    const boiler = config.codecs["boiler-status"];
    if (boiler?.type !== "struct") throw new Error("not a struct");
    expect(boiler.fields[0]?.enum).to.deep.equal({ 1: "status", 2: "alarm" });
    expect(boiler.fields[4]?.bits).to.deep.equal({ door: 0, fan: 1, mode: [2, 3] });
  });

  it("makes the files of certificates by name absolute as well", async () => {
    const tls = "tls: { cert: c, key: k, sni: { a.example: { cert: tls/a.crt, key: /etc/a.key } } }";
    const path = join(import.meta.dirname, "none.yaml");
    const config = await accepted(`mqtt: { listeners: [{ url: wss://127.0.0.1, ${tls} }] }`, { path });
    expect(config.mqtt.listeners[0]?.tls?.sni).to.deep.equal({
      "a.example": { cert: join(import.meta.dirname, "tls/a.crt"), key: "/etc/a.key" },
    });
  });

  it("has the example's values as defaults", async () => {
    const { config: written } = await example();
    const config = await accepted("");
    expect(config.gateway.logLevel).to.equal(written.gateway.logLevel);
    expect(config.mqtt.listeners).to.deep.equal(written.mqtt.listeners.slice(0, 1));
    expect(config.mqtt.limits).to.deep.equal(written.mqtt.limits);
    expect(config.storage).to.deep.equal(written.storage);
    expect(config.deadLetters).to.deep.equal(written.deadLetters);
    expect(config.access.anonymous).to.equal(true);
    expect(config.http).to.deep.equal(written.http);
    const bare = (await accepted("uplinks: [{ name: cloud, url: mqtts://broker.example.com }]")).uplinks[0];
    const { name, url, urls, clientId, username, password, tls, forward, receive, ...defaults } = written.uplinks[0]!;
    expect(bare).to.deep.include(defaults);
    expect(bare?.clientId).to.equal("host");
    const rule = "uplinks: [{ name: c, url: mqtt://h, forward: [{ topic: a }], receive: [{ topic: a, to: b }] }]";
    const rules = (await accepted(rule)).uplinks[0];
    expect(rules?.forward).to.deep.equal([{ topic: "a", to: "{topic}", qos: 1, priority: 0 }]);
    expect(rules?.receive).to.deep.equal([{ topic: "a", to: "b", qos: 1 }]);
  });

  it("has a config when there is no file, and when all of it is commented out", async () => {
    const none = await loadConfig({ env: {}, hostname: "pi/4" });
    expect(none.ok && none.config.gateway.id).to.equal("pi_4");
    expect(none.ok && none.file).to.equal(undefined);
    expect(none.ok && none.config.gateway.dataDir).to.equal(join(process.cwd(), "tidegate-data"));
    expect(await accepted("# nothing\n")).to.deep.equal(await accepted(""));
    expect(await accepted("mqtt:\n  limits:\n  # outbox: 1 MiB\nsources:\n")).to.deep.equal(await accepted(""));
  });

  it("takes the data folder from systemd and the largest message from the largest packet", async () => {
    const config = await accepted("mqtt: { limits: { maxPacketSize: 2 MiB } }", {
      env: { STATE_DIRECTORY: "/var/lib/tidegate:/var/lib/other" },
    });
    expect(config.gateway.dataDir).to.equal("/var/lib/tidegate");
    expect(config.storage.maxMessageBytes).to.equal(2 * 2 ** 20);
  });

  it("is anonymous by default only while every listener is local", async () => {
    const open =
      "mqtt: { listeners: [{ url: 'mqtts://[::]:8883', tls: { cert: c, key: k, ca: a, clientCert: required } }] }";
    expect((await accepted(open)).access.anonymous).to.equal(false);
    const local =
      "mqtt: { listeners: [{ url: mqtt://127.0.0.9:1 }, { url: 'mqtt://[::1]' }, { url: mqtt://localhost }, { url: unix:///a } ] }";
    expect((await accepted(local)).access.anonymous).to.equal(true);
  });

  it("puts the environment in, as a number where one is wanted", async () => {
    const text = `
gateway: { id: "\${SITE}-\${N}", dataDir: '$\${HOME}' }
sources:
  - name: a
    type: serial
    path: /dev/x
    baudRate: \${BAUD}
    rtscts: \${FLOW}
    decode: json
    topic: a
uplinks:
  - name: c
    url: mqtt://h
    username: u
    password: \${BAUD}`;
    const env = { SITE: "north", N: "1", BAUD: "9600", FLOW: "true" };
    const config = await accepted(text, { env });
    expect(config.gateway.id).to.equal("north-1");
    expect(config.gateway.dataDir).to.match(/\/\$\{HOME\}$/);
    expect(config.sources[0]).to.deep.include({ baudRate: 9600, rtscts: true });
    expect(config.uplinks[0]?.password).to.equal("9600");
    const quoted = text.replace(/: (\$\{BAUD\})/, ': "$1"');
    expect((await problemsOf(quoted, { env })).map(({ path }) => path)).to.deep.equal(["sources[0].baudRate"]);
  });

  it("reads secrets from files beside the config", async () => {
    writeFileSync(join(folder, "password"), "from a file\n");
    const path = join(folder, "tidegate.yaml");
    writeFileSync(path, "uplinks: [{ name: c, url: mqtt://h, username: u, password: { file: password } }]");
    const result = await loadConfig({ path, env: {} });
    const uplink = result.ok ? result.config.uplinks[0] : undefined;
    // Its content may change while the gateway runs, and is no change of the config then.
    expect(uplink).to.include({ password: undefined, passwordFile: join(folder, "password") });
    expect(await readSecretFile(uplink?.passwordFile ?? "")).to.equal("from a file");
  });

  it("says when the file is missing, a folder or too large", async () => {
    const missing = await loadConfig({ path: join(folder, "missing.yaml") });
    expect(missing.ok || missing.problems[0]?.message).to.contain("no such file");
    const directory = await loadConfig({ path: folder });
    expect(directory.ok || directory.problems[0]?.message).to.contain("a folder");
    expect((await problemsOf(" ".repeat(1024 * 1024 + 1)))[0]?.message).to.contain("too large");
  });

  it("resolves aliases and takes keys like constructor as they are", async () => {
    const text = `
codecs: { constructor: { type: json }, toString: { type: text } }
sources:
  - &one { name: a, type: coap, url: coap://h, decode: constructor, topic: a }
routes: [{ name: r, from: a, to: &t b }, { name: s, from: c, to: *t }]`;
    const config = await accepted(text);
    expect(config.routes[1]?.to).to.equal("b");
    expect(Object.keys(config.codecs)).to.deep.equal(["constructor", "toString"]);
    expect(
      (await problemsOf("routes: [{ name: r, from: a, to: b, steps: [{ decode: valueOf }] }]"))[0]?.message,
    ).to.contain('no codec "valueOf"');
  });

  // Each reading makes its schemas anew, which is 10 ms of work: hundreds of them are minutes on a busy machine.
  it("never throws, whatever the text", async function () {
    this.timeout(300_000);
    const words = fc.constantFrom(
      ..."mqtt: |limits:|uplinks:|sources:|- |  |\n|\n  |{|}|[|]|name: |type: |serial|struct|&a |*a|!!x |$|{X}|${|__proto__: |<<: |\"|'|10s|1 MiB|null|0x1f|\t|? |: |url: mqtt://|fields: |#|,|codecs: |--- ".split(
        "|",
      ),
      "|\n",
      ">\n",
    );
    const text = fc.oneof(
      fc.array(words, { maxLength: 40 }).map((parts) => parts.join("")),
      fc.string({ unit: "binary", maxLength: 60 }),
    );
    await fc.assert(
      fc.asyncProperty(text, async (yaml) => {
        const result = await loadConfig({ text: yaml, env: { X: "x" }, hostname: "h" });
        if (!result.ok) expect(result.problems.length).to.be.greaterThan(0);
      }),
      { numRuns: 300 },
    );
    expect(({} as Record<string, unknown>)["polluted"]).to.equal(undefined);
  });

  it("never throws, whatever stands where a value belongs", async function () {
    this.timeout(300_000);
    const value = fc.json({ maxDepth: 3, noUnicodeString: false });
    const key = fc.constantFrom(
      "gateway",
      "mqtt",
      "storage",
      "access",
      "codecs",
      "sources",
      "routes",
      "uplinks",
      "http",
    );
    const entry = fc.dictionary(
      fc.constantFrom(
        "name",
        "type",
        "url",
        "urls",
        "listeners",
        "steps",
        "fields",
        "topic",
        "to",
        "from",
        "tls",
        "listen",
      ),
      fc.oneof(
        value.map((json) => JSON.parse(json)),
        fc.constantFrom("serial", "coap", "struct", "mqtt://x", "a/{1}", "#"),
      ),
    );
    await fc.assert(
      fc.asyncProperty(
        key,
        fc.oneof(entry, fc.array(entry), fc.dictionary(fc.string(), entry)),
        async (section, body) => {
          await loadConfig({ text: JSON.stringify({ [section]: body }), env: {}, hostname: "h" });
        },
      ),
      { numRuns: 300 },
    );
  });

  it("bounds what a hostile file can cost", async () => {
    const bomb = ["a: &a [1,2,3,4,5,6,7,8,9]"];
    for (let at = 1; at < 9; at += 1) {
      const alias = `*${"abcdefghi"[at - 1]}`;
      bomb.push(`${"abcdefghi"[at]}: &${"abcdefghi"[at]} [${new Array(9).fill(alias).join(",")}]`);
    }
    expect((await problemsOf(bomb.join("\n"))).some(({ message }) => message.includes("aliases"))).to.equal(true);
    expect((await problemsOf("gateway: &a [*a]")).length).to.be.greaterThan(0);
    for (const nested of ["[", "{", "- ", "? ", "{a: ", "[{a: "]) {
      const [problem] = await problemsOf(`gateway:\n  ${nested.repeat(5000)}`);
      expect(problem?.message, nested).to.contain("nested too deeply");
      expect(problem?.line, nested).to.equal(2);
    }
    const indented = Array.from({ length: 400 }, (_, at) => `${" ".repeat(at)}a:`).join("\n");
    expect((await problemsOf(indented))[0]?.message).to.contain("nested too deeply");
    const many = await problemsOf(Array.from({ length: 2000 }, (_, at) => `key${at}: 1`).join("\n"));
    expect(many.length).to.equal(501);
    expect(many.at(-1)?.message).to.equal("and 1500 more problems");
  });
});
