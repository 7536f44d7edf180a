import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "chai";
import mqtt, { type MqttClient } from "mqtt";
import { type CloudConnection, FakeCloud, type SeenPacket } from "../helpers/fakeCloud.ts";
import { GatewayProcess, runProgram } from "../helpers/gatewayProcess.ts";
import { freePorts } from "../helpers/ports.ts";
import { until } from "../helpers/wait.ts";

interface Listed {
  total: number;
  next: number | null;
  letters: Array<{ id: number; code: string; attempts: number; topic: string; uplink?: string; route?: string }>;
}

/** The real binary, its uplink `cloud`, and a stand-in cloud that refuses. */
class Bench {
  readonly gateway: GatewayProcess;
  readonly cloud: FakeCloud;
  readonly #port: number;
  readonly #http: number;
  readonly #clients: MqttClient[] = [];

  private constructor(gateway: GatewayProcess, cloud: FakeCloud, port: number, http: number) {
    this.gateway = gateway;
    this.cloud = cloud;
    this.#port = port;
    this.#http = http;
  }

  static async open(publish: (cloud: CloudConnection, packet: SeenPacket) => void): Promise<Bench> {
    const [port = 0, http = 0] = await freePorts(2);
    const cloud = await FakeCloud.open(5, { publish });
    return new Bench(await GatewayProcess.create(""), cloud, port, http);
  }

  async start(more = "", name = "cloud"): Promise<void> {
    await this.gateway.configure(`
gateway: { id: g1 }
mqtt: { listeners: [ { url: "mqtt://127.0.0.1:${this.#port}" } ] }
http: { listen: "http://127.0.0.1:${this.#http}" }
storage: { maxBytes: 64 MiB, minFreeBytes: 0 }
routes: [ { name: meters, from: "raw/+", steps: [ { decode: json } ], to: "m/{1}", onError: dead-letter } ]
uplinks:
  - name: ${name}
    url: mqtt://127.0.0.1:${this.cloud.port}
    backoff: { min: 20ms, max: 100ms }
    inflight: 20
    queue: { maxBytes: 8 MiB }
    forward: [ { topic: "plant/+/high", priority: 9 }, { topic: "plant/#", to: "up/{rest}", priority: 5 } ]
${more}`);
    await this.gateway.start();
  }

  async client(): Promise<MqttClient> {
    const client = mqtt.connect(`mqtt://127.0.0.1:${this.#port}`, { protocolVersion: 5, reconnectPeriod: 0 });
    client.on("error", () => {});
    this.#clients.push(client);
    await new Promise<void>((resolve, reject) => {
      client.once("connect", () => resolve());
      client.once("close", () => reject(new Error("closed before it was connected")));
    });
    return client;
  }

  async api<T>(path: string, method = "GET"): Promise<T> {
    return (await (await fetch(`http://127.0.0.1:${this.#http}/api/v1/${path}`, { method })).json()) as T;
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#http}/metrics`)).text();
    return Number(text.match(new RegExp(`^${name} (.*)$`, "m"))?.[1]);
  }

  letters(): Promise<Listed> {
    return this.api<Listed>("dead-letters?limit=1000");
  }

  async waiting(): Promise<number> {
    const [queue] = await this.api<Array<{ messages: number }>>("queues");
    return queue?.messages ?? 0;
  }

  /** A command of the program; its stdout, with the exit code where that is not 0, and stderr then. */
  async run(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await runProgram([...args, "-c", this.gateway.configFile]);
    return code === 0 && stderr === "" ? stdout : `${stdout}${stderr}exit code ${code}`;
  }

  async close(): Promise<void> {
    for (const client of this.#clients) await client.endAsync(true).catch(() => {});
    await this.gateway.remove();
    await this.cloud.close();
  }
}

describe("dead letters, with the real binary", function () {
  this.timeout(240_000);
  let bench: Bench;
  afterEach(() => bench.close());

  it("kill -9 at refusals: every message is at the cloud or exactly one dead letter", async () => {
    const taken = new Set<number>();
    const refusals = new Map<number, number>();
    let killAt = 3;
    let refused = 0;
    let killing: Promise<unknown> | undefined;
    const onPublish = (cloud: CloudConnection, { payload, messageId }: SeenPacket): void => {
      const n = Number(String(payload));
      const times = (refusals.get(n) ?? 0) + 1;
      const forNow = n % 7 === 2 && times < 3;
      if (n % 3 !== 0 && !forNow) {
        taken.add(n);
        return cloud.puback(messageId);
      }
      refusals.set(n, times);
      cloud.puback(messageId, n % 3 === 0 ? 0x87 : 0x97);
      refused += 1;
      if (refused < killAt || killing !== undefined) return;
      // The refusal is on its way: it is read, the letter written or synced, or nothing of it, when the process ends.
      killing = new Promise((resolve) => setTimeout(resolve, (refused * 7) % 12)).then(() =>
        bench.gateway.end("SIGKILL"),
      );
    };
    bench = await Bench.open(onPublish);
    let next = 0;
    const acknowledged: number[] = [];
    for (let life = 0; life < 8; life += 1) {
      killing = undefined;
      killAt = refused + 2 + life * 2;
      await bench.start();
      try {
        const client = await bench.client();
        const closed = new Promise<never>((_, reject) => client.once("close", () => reject(new Error("killed"))));
        while (killing === undefined && next < 50 * (life + 1)) {
          const n = next++; // never twice: what was not acknowledged may be there
          await Promise.race([
            client.publishAsync(`plant/${n % 2 === 0 ? "a/high" : "b"}`, String(n), { qos: 1 }),
            closed,
          ]);
          acknowledged.push(n);
        }
      } catch {
        // it was killed
      }
      await until("the kill", () => killing !== undefined, 15_000).catch(() => {}); // all of this life may have gone before
      await (killing ?? bench.gateway.end("SIGKILL"));
    }
    killAt = Number.POSITIVE_INFINITY;
    await bench.start();
    await until("drained", async () => (await bench.waiting()) === 0, 60_000);
    const { letters } = await bench.letters();
    const dead: number[] = [];
    for (const { id } of letters) {
      const { payload } = await bench.api<{ payload: { data: string } }>(`dead-letters/${id}`);
      dead.push(Number(payload.data));
    }
    expect(acknowledged.length).to.be.above(50);
    expect(new Set(dead).size, "each once").to.equal(dead.length);
    for (const n of acknowledged) {
      if (n % 3 === 0) expect(dead, `${n} is a dead letter`).to.include(n);
      else expect(taken, `${n} is at the cloud`).to.include(n);
    }
    expect(dead.filter((n) => n % 3 !== 0)).to.deep.equal([]);
    expect(await bench.metric("tidegate_dead_letters")).to.equal(dead.length);
  });

  it("what a stranger sees and does: list, show, retry, purge, status", async () => {
    let mended = false;
    bench = await Bench.open((cloud, { topic, messageId }) =>
      cloud.puback(messageId, String(topic).includes("bad") && !mended ? 0x87 : 0),
    );
    await bench.start();
    expect(await bench.run("dead", "list")).to.equal("no dead letters\n");
    const client = await bench.client();
    const properties = { contentType: "application/json", userProperties: { place: "hall\u001b[31m" } };
    await client.publishAsync("plant/bad/1", '{"t":21.5}', { qos: 1, retain: true, properties });
    await client.publishAsync("plant/bad/2", Buffer.from([0, 1, 250, 65]), { qos: 1 });
    await client.publishAsync("raw/x", "{not json", { qos: 1 });
    await client.publishAsync("plant/good", "fine", { qos: 1 });
    await until("three letters", async () => (await bench.letters()).total === 3);

    const list = (await bench.run("dead", "list")).split("\n");
    expect(list[0]).to.match(/^ID {2}FAILED +AT +CODE +REASON +SIZE +TOPIC$/);
    expect(list.slice(1, 4).join("\n")).to.match(
      /uplink cloud {2}0x87 +the cloud refused it: not authorized +4 B +plant\/bad\/2/,
    );
    expect(list.slice(1, 4).join("\n")).to.match(/route meters {2}decode {2}.* raw\/x/);
    expect(list[4]).to.equal("3 shown of 3 dead letters");
    const found = await bench.letters();
    const idOf = (topic: string): string => String(found.letters.find((letter) => letter.topic === topic)?.id);
    const [one, two, route] = [idOf("plant/bad/1"), idOf("plant/bad/2"), idOf("raw/x")];
    const filtered = await bench.run(
      "dead",
      "list",
      "--topic",
      "plant/+/1",
      "--reason",
      "authorized",
      "--uplink",
      "cloud",
    );
    expect(filtered).to.contain("plant/bad/1").and.contain("1 shown of 1 that match; 3 dead letters in all");
    const json = JSON.parse(await bench.run("dead", "list", "--json", "--limit", "1")) as Listed;
    expect([json.letters.length, json.total, json.next]).to.deep.equal([1, 3, json.letters[0]?.id]);

    const shown = await bench.run("dead", "show", one);
    expect(shown).to.contain("failed at   uplink cloud, priority 5, seq ");
    expect(shown).to.contain('rule        {"filter":"plant/#","to":"up/{rest}","qos":1}');
    expect(shown).to.contain("reason      0x87: the cloud refused it: not authorized");
    expect(shown).to.contain("qos         1, retained").and.contain("contentType application/json");
    expect(shown).to.contain("property    place: hall\\x1b[31m").and.not.contain("\u001b");
    expect(shown).to.contain('payload     10 bytes, JSON\n{\n  "t": 21.5\n}');
    expect(await bench.run("dead", "show", two)).to.match(/payload {5}4 bytes\n0000 {2}00 01 fa 41 +\.\.\.A/);
    expect(await bench.run("dead", "show", route)).to.contain("payload     9 bytes, text\n{not json");
    expect(await bench.run("dead", "show", "77")).to.equal("tidegate: there is no dead letter 77\nexit code 1");
    expect(await bench.run("status")).to.match(/^dead {7}3 letters, .*; newest .* ago: .*\(tidegate dead list\)$/m);

    expect(await bench.run("dead", "list", "--since", "yesterday")).to.match(
      /^tidegate: since: a time .*\nexit code 2$/,
    );
    expect(await bench.run("queue", "peek", "cloud", "-n", "0")).to.match(
      /a whole number from 1 to 1000.*\nexit code 2$/,
    );
    expect(await bench.run("dead", "retry")).to.match(/which dead letters\?.*\nexit code 2/);
    expect(await bench.run("dead", "retry", one)).to.equal(`dead letter ${one}: queued again\n`);
    await until("refused again", async () => (await bench.letters()).letters.some(({ attempts }) => attempts === 2));
    mended = true;
    const all = await bench.run("dead", "retry", "--all");
    expect(all).to.match(/^2 dead letters queued again; not sent again: 1\n {2}\d+: decode: .*\nexit code 1$/);
    await until("at the cloud", () => bench.cloud.payloads.filter((text) => text === '{"t":21.5}').length === 3);
    await until("settled", async () => (await bench.waiting()) === 0);
    expect((await bench.letters()).letters.map(({ topic }) => topic)).to.deep.equal(["raw/x"]);
    const at = bench.cloud.last?.seen("publish").filter(({ topic }) => topic === "up/bad/1") ?? [];
    const taken = at.map(({ properties: own }) => (own?.["userProperties"] ?? {}) as { ts?: string });
    expect(new Set(taken.map(({ ts }) => ts)).size, "the time it was taken stays").to.equal(1);
    expect(await bench.run("dead", "purge", "--older", "1d")).to.equal("0 dead letters purged\n");
    expect(await bench.run("dead", "purge", route, route)).to.equal(`dead letter ${route}: purged\n`);
    expect(await bench.run("dead", "list")).to.equal("no dead letters\n");
  });

  it("lets nothing that others sent write to the terminal: refusals and --json as well", async () => {
    bench = await Bench.open((cloud, { messageId }) => cloud.puback(messageId, 0x87));
    await bench.start();
    const client = await bench.client();
    await client.publishAsync("raw/x", "\u001b[2J\u009b31m{", { qos: 1 });
    await client.publishAsync("plant/\u009b31m\u202e", "\u009b31m", { qos: 1 });
    await until("two letters", async () => (await bench.letters()).total === 2);
    const ids = (await bench.letters()).letters.map(({ id }) => String(id));
    const json = await bench.run("dead", "list", "--json");
    expect((JSON.parse(json) as Listed).letters.map(({ topic }) => topic)).to.include("plant/\u009b31m\u202e");
    const [one = "", two = ""] = ids;
    await bench.run("queue", "pause", "cloud");
    const shown = [
      json,
      await bench.run("dead", "list"),
      await bench.run("dead", "show", one),
      await bench.run("dead", "show", two, "--json"),
      await bench.run("dead", "retry", one, two, "7\u001b[2J"),
      await bench.run("queue", "peek", "cloud", "--json"),
      await bench.run("queue", "peek", "cloud"),
      await bench.run("queue", "purge", "\u009b31m", "--yes"),
    ];
    expect(shown[4]).to.match(/there is no dead letter 7\\x1b\[2J$/m);
    for (const text of shown) expect(text).to.not.match(/(?!\n)[\p{Cc}\p{Cf}]/u);
  });

  it("survives a restart, with a damaged catalogue made anew, without the payload in it", async () => {
    bench = await Bench.open((cloud, { messageId }) => cloud.puback(messageId, 0x99));
    await bench.start();
    const client = await bench.client();
    for (let n = 0; n < 5; n += 1) await client.publishAsync("plant/b", `secret ${n}`, { qos: 1 });
    await until("letters", async () => (await bench.letters()).total === 5);
    expect(await bench.gateway.end("SIGTERM")).to.equal(0);
    const file = join(bench.gateway.dir, "tidegate-data", "catalogue", "dead-letters.db");
    const bytes = await readFile(file);
    expect(bytes.toString()).to.not.contain("secret");
    await writeFile(file, bytes.subarray(0, -7));
    await bench.start("deadLetters: { maxMessages: 3 }");
    await until("the cap", async () => (await bench.letters()).total === 3);
    const { letters } = await bench.letters();
    expect(letters.map(({ id, code }) => [id, code])).to.deep.equal([
      [5, "0x99"],
      [4, "0x99"],
      [3, "0x99"],
    ]);
    expect((await readFile(`${file}.damaged`)).length).to.equal(bytes.length - 7);
    expect(await bench.metric('tidegate_dead_letters_dropped_total\\{reason="full"\\}')).to.equal(2);
  });

  it("queues: list, peek, pause over a restart, resume, and purging what an uplink left behind", async () => {
    bench = await Bench.open((cloud, { messageId }) => cloud.puback(messageId));
    await bench.start();
    expect(await bench.run("queue", "pause", "cloud")).to.match(/^cloud is paused: it stays connected/);
    const client = await bench.client();
    await client.publishAsync("plant/b", "low", { qos: 1 });
    await client.publishAsync("plant/a/high", Buffer.from([1, 2, 255]), { qos: 1 });
    await bench.gateway.end("SIGKILL");
    await bench.start();
    await until("up again", async () => (await bench.api<Array<{ state: string }>>("queues"))[0]?.state === "up");
    expect(await bench.run("queue", "list")).to.match(/^cloud +up, paused +2 +\d+ B +\d+ s +0 +-$/m);
    const peeked = (await bench.run("queue", "peek", "cloud")).split("\n");
    expect(peeked[1]).to.match(/^\d+ +9 .* waits +3 B +plant\/a\/high +0102ff \(hex\)$/);
    expect(peeked[2]).to.match(/^\d+ +5 .* waits +3 B +plant\/b +low$/);
    expect(await bench.run("queue", "peek", "cloud", "-n", "1")).to.contain("more waits behind these");
    expect(await bench.run("status")).to.contain("cloud up, paused by an operator,");
    expect(bench.cloud.payloads).to.deep.equal([]);
    expect(await bench.run("queue", "resume", "cloud")).to.equal("cloud sends again\n");
    await until("sent", () => bench.cloud.payloads.length === 2);
    expect(bench.cloud.payloads[1]).to.equal("low");
    expect(await bench.run("queue", "pause", "nobody")).to.equal("tidegate: there is no uplink nobody\nexit code 1");

    await bench.run("queue", "pause", "cloud");
    await (await bench.client()).publishAsync("plant/b", "left behind", { qos: 1 });
    await bench.gateway.end("SIGTERM");
    await bench.start("", "other");
    expect(await bench.run("queue", "list")).to.match(/^cloud +orphaned +1 /m);
    expect(await bench.run("queue", "peek", "cloud")).to.contain("left behind");
    expect(await bench.run("queue", "purge", "cloud")).to.match(
      /waiting for cloud, and lost then: 1 message .*--yes.*\nexit code 2$/,
    );
    expect(await bench.run("queue", "purge", "cloud", "--yes")).to.match(/^1 message \(\d+ B\) of cloud purged\n$/);
    expect(await bench.run("queue", "list")).to.not.contain("orphaned");
  });
});
