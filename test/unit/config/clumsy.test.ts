import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { check } from "../../../src/cli/check.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { accepted, problemsOf } from "./helpers.ts";

async function warningsOf(text: string): Promise<string[]> {
  const result = await loadConfig({ text, env: {}, hostname: "h" });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.warnings.map(({ path, message }) => `${path}: ${message}`);
}

const only = async (text: string): Promise<string> => {
  const problems = await problemsOf(text);
  expect(problems.map(({ path }) => path)).to.have.length(1);
  return problems[0]?.message ?? "";
};

describe("config: what is typed in a hurry", () => {
  it("a number in quotes, or with a unit, is said to be that, and not to be out of range", async () => {
    expect(await only('mqtt: { limits: { maxInflight: "100" } }')).to.equal(
      '"100" is not a number (a whole number from 1 to 65535)',
    );
    expect(await only("mqtt: { limits: { maxKeepAlive: 60s } }")).to.equal(
      '"60s" is not a number (a whole number from 1 to 65535)',
    );
    expect(await only("uplinks: [ { name: a, url: mqtt://h, drain: { liveShare: true } } ]")).to.contain(
      "true is not a number (a number from 0 to 0.9)",
    );
    expect(await only("mqtt: { limits: { maxInflight: 0 } }")).to.contain("0 is out of range");
  });

  it("a url without its scheme, or a word where http has false", async () => {
    expect(await only("http: { listen: '127.0.0.1:8080' }")).to.equal("not a url (http://HOST:PORT, or false)");
    expect(await only("http: { listen: 'off' }")).to.equal("not a url (http://HOST:PORT, or false)");
    expect(await only("mqtt: { listeners: [ { url: '127.0.0.1:1883' } ] }")).to.equal(
      "not a url (mqtt://, mqtts://, ws://, wss://, unix://)",
    );
  });

  it("~ is a shell's: said, and not refused, for a folder of that name may hold the data by now", async () => {
    const says = "~ stands for no home folder here: it is a folder of that name, beside the config file";
    expect(await warningsOf("gateway: { dataDir: ~/data }")).to.deep.equal([`gateway.dataDir: ${says}`]);
    const tls = "tls: { ca: ~/ca.pem }";
    const uplink = `uplinks: [ { name: a, url: mqtts://h, ${tls}, forward: [ { topic: "#" } ] } ]`;
    expect(await warningsOf(uplink)).to.deep.equal([`uplinks[0].tls.ca: ${says}`]);
    expect(await warningsOf("gateway: { dataDir: ./~/data }")).to.deep.equal([]);
    expect(await warningsOf("gateway: { dataDir: ~data }")).to.deep.equal([]);
  });

  it("an uplink that forwards and receives nothing", async () => {
    const idle = 'uplinks[0]: it forwards nothing and receives nothing (forward: [ { topic: "#" } ])';
    expect(await warningsOf("uplinks: [ { name: a, url: mqtt://h } ]")).to.deep.equal([idle]);
    expect(await warningsOf('uplinks: [ { name: a, url: mqtt://h, forward: [ { topic: "#" } ] } ]')).to.deep.equal([]);
  });

  it("a forward rule that no message comes to, for one before it takes all of them", async () => {
    const rules = (...topics: string[]): string =>
      `uplinks: [ { name: a, url: mqtt://h, forward: [ ${topics.map((topic) => `{ topic: "${topic}" }`).join(", ")} ] } ]`;
    expect(await warningsOf(rules("#", "alarm/#"))).to.deep.equal([
      "uplinks[0].forward[1].topic: no message comes to this rule: forward[0] takes all of them (the first that matches decides)",
    ]);
    expect(await warningsOf(rules("a/+", "a/b", "a/#"))).to.have.length(1);
    for (const good of [rules("alarm/#", "#"), rules("#", "$SYS/#"), rules("a/+", "a/b/c")])
      expect(await warningsOf(good), good).to.deep.equal([]);
  });
});

describe("config: doors that cannot be opened beside each other", () => {
  const taken = "another listener has this address already (one listener an address)";
  const listeners = (...urls: string[]): string =>
    `access: { anonymous: true }\nmqtt: { listeners: [ ${urls.map((url) => `{ url: "${url}" }`).join(", ")} ] }\n`;

  it("all addresses of the machine, and one of them", async () => {
    for (const [one, other] of [
      ["mqtt://0.0.0.0:1883", "mqtt://127.0.0.1:1883"],
      ["mqtt://[::]:1883", "mqtt://[::1]:1883"],
      ["mqtt://localhost:1883", "ws://0.0.0.0:1883"],
    ] as const)
      expect(await only(listeners(one, other)), `${one} ${other}`).to.equal(taken);
    await accepted(listeners("mqtt://[::]:1883", "mqtt://127.0.0.1:1883")); // whether it can be is the machine's to say (bindv6only)
    await accepted(listeners("mqtt://0.0.0.0:1883", "mqtt://[::1]:1883", "mqtt://127.0.0.1:1884", "mqtt://0.0.0.0:0"));
    expect(await only(`${listeners("mqtt://0.0.0.0:1883")}http: { listen: "http://127.0.0.1:1883" }`)).to.equal(taken);
  });

  it("one that is written, and one that is there by default", async () => {
    expect(await only("http: { listen: http://127.0.0.1:1883 }")).to.equal(taken);
    expect(await only(listeners("mqtt://0.0.0.0:8080"))).to.equal(
      "http.listen has this address by default (another port, or http: { listen: false })",
    );
    await accepted(`${listeners("mqtt://0.0.0.0:8080")}http: { listen: false }`);
    await accepted("mqtt: { listeners: [] }\nhttp: { listen: http://127.0.0.1:1883 }");
  });

  it("* is no address", async () => {
    expect(await only(listeners("mqtt://*:1883"))).to.equal("* is not an address (0.0.0.0, or [::], is all of them)");
  });
});

describe("tidegate check: files that the config names", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("certificates and keys that are not there are warnings, with their place; run would end with them", async () => {
    writeFileSync(join(folder, "there.pem"), "");
    writeFileSync(
      join(folder, "tidegate.yaml"),
      `mqtt:
  listeners:
    - url: mqtts://127.0.0.1:8883
      tls: { cert: there.pem, key: gone.key, sni: { a.example: { cert: ., key: there.pem } } }
uplinks:
  - { name: a, url: "mqtts://h", tls: { ca: gone.pem }, forward: [ { topic: "#" } ] }
`,
    );
    const said: string[] = [];
    const io = { out: (line: string) => void said.push(line), err: (line: string) => void said.push(line) };
    const config = join(folder, "tidegate.yaml");
    expect(await check({ config }, io)).to.equal(0);
    expect(said).to.deep.equal([
      `${config}:4:36: mqtt.listeners[0].tls.key: warning: no such file (a PEM file, readable by the gateway's user)`,
      `${config}:4:72: mqtt.listeners[0].tls.sni.a.example.cert: warning: a folder, not a file (a PEM file, readable by the gateway's user)`,
      `${config}:6:45: uplinks[0].tls.ca: warning: no such file (a PEM file, readable by the gateway's user)`,
      `${config}: valid`,
    ]);
  });

  it("a config without an end is not read to its end", async () => {
    const result = await loadConfig({ path: "/dev/zero", env: {} });
    expect(!result.ok && result.problems[0]?.message).to.equal("too large for a config (at most 1 MiB)");
  });
});
