import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { request } from "node:http";
import { connect, type NetConnectOpts } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import type { Store, UplinkState } from "../../../src/base/contracts.ts";
import type { Letter, LetterDesk, LetterFilter } from "../../../src/base/deadLetters.ts";
import { TidegateError } from "../../../src/base/errors.ts";
import { type ControlHandle, openControl } from "../../../src/http/control.ts";
import { QueueDesk } from "../../../src/http/queueDesk.ts";
import { type HttpHandle, type HttpViews, listenHttp } from "../../../src/http/server.ts";
import { type LoggedLine, recordingLog } from "../../helpers/memoryUplink.ts";
import { until } from "../../helpers/wait.ts";

const letter: Letter = {
  id: 5,
  from: { kind: "uplink", name: "cloud", rule: '{"to":"up"}', priority: 3, seq: 9 },
  ...{ code: "0x87", text: "not authorized", attempts: 2, takenMs: 0, firstMs: 1000, lastMs: 1e300 },
  ...{ topic: "t/a", source: "mqtt:a", bytes: 2 },
  message: {
    topic: "t/a",
    payload: Buffer.from([0xff, 1]),
    qos: 1,
    retain: true,
    source: "mqtt:a",
    properties: { correlationData: Buffer.from([1, 2]), userProperties: [["a", "b"]] },
  },
};

describe("http/api", () => {
  let dir: string;
  let server: HttpHandle;
  let control: ControlHandle | undefined;
  let calls: unknown[];
  let readFault: Error | undefined;
  let durable = true;
  const lines: LoggedLine[] = [];

  const state = (name: string): UplinkState => ({
    ...{ name, link: "up", sinceMs: 0, paused: false, sent: 0, acknowledged: 0, inflight: 1 },
    ...{ url: "mqtt://a", attempts: 0, eta: { state: "measuring", seconds: null }, room: { bytes: 9, seconds: null } },
    rates: {
      ...{ inPerSecond1m: null, inPerSecond5m: null, inBytesPerSecond5m: null },
      ...{ outPerSecond1m: null, outPerSecond5m: null, outBytesPerSecond1m: null },
    },
    queue: {
      ...{ messages: 2, bytes: 30, oldestAcceptedAtMs: 400, taken: 5, takenBytes: 75, dropped: { full: 3 } },
      droppedByRule: { "plant/#": { full: 3 } },
    },
  });
  const store = {
    nowMs: () => 1400,
    stats: () => ({ orphaned: [{ name: "old/one", orphaned: true, messages: 7, bytes: 70, dropped: {} }] }),
    purgeUplink: async (name: string) => {
      calls.push(["purge queue", name]);
      return { messages: 7, bytes: 70 };
    },
    peekUplink: async (name: string, count: number) => {
      calls.push(["peek", name, count]);
      const { message } = letter;
      const queued = { position: 1, lane: 1, priority: 3, seq: 4, rule: 1, acceptedAtMs: 0, wallMs: 0, message };
      return { messages: [{ ...queued, inFlight: true }], more: true };
    },
  } as unknown as Store;
  const publisher = { whenDurable: (_: number, settled: (durable: boolean) => void) => settled(durable) };
  const drop = { topic: "plant/1", messages: 1, reason: "full", rule: "plant/#", uplink: "cloud", atMs: 0 };
  const uplinks = [
    {
      state: () => state("cloud"),
      pause: (paused: boolean) => calls.push(["pause", paused]),
      queue: { recentDrops: () => [drop, { ...drop, topic: null, messages: 9 }] },
    },
  ];
  const letters: Partial<LetterDesk> = {
    get: async (id) => {
      if (readFault !== undefined) throw readFault;
      return id === 5 ? letter : undefined;
    },
    purge: async (id) => id === 5,
    retry: async (id) => {
      if (id === 6) return { ok: false, code: "no_uplink", message: "there is no uplink" };
      return id === 5 ? { ok: true, group: 1 } : undefined;
    },
    retryAll: async (filter) => {
      calls.push(["retry all", filter]);
      return { retried: 1, kept: [], keptCount: 0 };
    },
    purgeAll: async (filter) => {
      calls.push(["purge all", filter]);
      return 4;
    },
  };
  const browser = {
    find: async (filter: LetterFilter, page: { limit: number; before?: number | undefined }) => {
      calls.push(["find", filter, page]);
      return { letters: [letter], matching: 1, next: undefined, total: 1, catalogued: 1 };
    },
  };
  const views: HttpViews = {
    health: () => [],
    metrics: () => "",
    status: () => ({ queues: "of the status", deadLetters: {} }),
    api: { letters: letters as LetterDesk, browser, queues: new QueueDesk(store, publisher, uplinks) },
  };

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-api-"));
    server = await listenHttp({ host: "127.0.0.1", port: 0 }, views, recordingLog(lines));
    control = await openControl(dir, { ...views, backup: async () => ({}) }, recordingLog(lines));
  });
  beforeEach(() => {
    calls = [];
    readFault = undefined;
    durable = true;
  });
  after(async () => {
    await server.close();
    await control?.close();
    await rm(dir, { recursive: true });
  });

  interface Asked {
    method?: string;
    headers?: Record<string, string>;
    body?: string | Buffer;
    /** By control.sock. */
    control?: boolean;
  }
  interface Answered {
    status: number;
    allow: string | undefined;
    body: { error?: { code: string; message: string }; [field: string]: unknown };
  }

  function ask(path: string, { method = "GET", headers = {}, body, control: own }: Asked = {}): Promise<Answered> {
    const where = own === true ? { socketPath: join(dir, "control.sock") } : { host: "127.0.0.1", port: server.port };
    return new Promise((resolve, reject) => {
      const asked = request({ ...where, path, method, headers, agent: false }, (response) => {
        let text = "";
        response.on("data", (chunk) => (text += chunk));
        const { statusCode: status = 0 } = response;
        response.on("end", () => resolve({ status, allow: response.headers.allow, body: JSON.parse(text) }));
      });
      asked.on("error", reject);
      asked.end(body);
    });
  }
  const codeOf = async (path: string, asked: Asked = {}): Promise<string> => {
    const { status, body } = await ask(path, asked);
    return `${status} ${body.error?.code}`;
  };

  it("lists dead letters by filter and page", async () => {
    const query =
      "uplink=cloud&route=r&reason=0x87&topic=t/%23&since=1970-01-01T00:00:01Z&until=20000&limit=7&before=9";
    const { status, body } = await ask(`/api/v1/dead-letters?${query}`);
    expect(status).to.equal(200);
    const filter = { uplink: "cloud", route: "r", reason: "0x87", topic: "t/#", sinceMs: 1000, untilMs: 20000 };
    expect(calls).to.deep.equal([["find", filter, { limit: 7, before: 9 }]]);
    expect(body).to.deep.include({ matching: 1, next: null, total: 1, catalogued: 1 });
    expect(body["letters"]).to.deep.equal([
      {
        ...{ id: 5, uplink: "cloud", priority: 3, seq: 9, rule: { to: "up" }, code: "0x87", reason: "not authorized" },
        ...{ attempts: 2, taken: "1970-01-01T00:00:00.000Z", first: "1970-01-01T00:00:01.000Z" },
        ...{ last: "1970-01-01T00:00:00.000Z", topic: "t/a", source: "mqtt:a", bytes: 2 },
      },
    ]);
  });

  it("refuses a filter that it does not understand: it must not mean all of them", async () => {
    const queries = ["uplnk=x", "limit=0", "limit=1001", "limit=x", "before=0", "topic=a/%23/b", "uplink=a&uplink=b"];
    const times = ["yesterday", "yesterday 1", "7 days ago 3", "-5", "2026", "2026-13-01", "2026-02-01T25:00Z", ""];
    for (const query of [...queries, ...times.map((time) => `since=${encodeURIComponent(time)}`)])
      expect(await codeOf(`/api/v1/dead-letters?${query}`), query).to.equal("400 bad_request");
    for (const since of [null, true, [], -5, 1e300]) {
      const asked = { body: JSON.stringify({ since }), headers: { "Content-Type": "application/json" } };
      const code = await codeOf("/api/v1/dead-letters/purge", { method: "POST", control: true, ...asked });
      expect(code, asked.body).to.equal("400 bad_request");
    }
    expect(calls).to.deep.equal([]);
  });

  it("takes no query where the choice belongs in the body: it must not be passed over", async () => {
    for (const path of ["dead-letters/purge", "dead-letters/retry", "queues/cloud/purge", "uplinks/cloud/pause"])
      expect(await codeOf(`/api/v1/${path}?uplink=cloud`, { method: "POST", control: true }), path).to.equal(
        "400 bad_request",
      );
    expect(await codeOf("/api/v1/dead-letters/5?x", { method: "DELETE" })).to.equal("400 bad_request");
    expect(calls).to.deep.equal([]);
    await ask("/api/v1/dead-letters?topic=a?b/c");
    expect((calls[0] as unknown[])[1]).to.include({ topic: "a?b/c" });
  });

  it("shows one, payload and properties as they can be shown", async () => {
    const { body } = await ask("/api/v1/dead-letters/5");
    expect(body).to.deep.include({ id: 5, qos: 1, retain: true, payload: { encoding: "base64", data: "/wE=" } });
    const correlationData = { encoding: "base64", data: "AQI=" };
    expect(body["properties"]).to.deep.equal({ correlationData, userProperties: [["a", "b"]] });
    for (const id of ["4", "x", "0", "-1", "5.0", "99999999999999999999", "%2e"])
      expect(await codeOf(`/api/v1/dead-letters/${id}`), id).to.equal("404 not_found");
    expect(await codeOf("/api/v1/dead-letters/%ff")).to.equal("400 bad_request");
    readFault = new TidegateError("TG_STORE_READ", "no descriptors", { retriable: true });
    expect(await codeOf("/api/v1/dead-letters/5")).to.equal("503 TG_STORE_READ");
    readFault = new Error("ours");
    expect(await codeOf("/api/v1/dead-letters/5")).to.equal("500 internal");
  });

  it("retries and purges one", async () => {
    const post: Asked = { method: "POST" };
    expect(await ask("/api/v1/dead-letters/5/retry", post)).to.deep.include({ status: 200, body: { retried: 1 } });
    expect(await codeOf("/api/v1/dead-letters/6/retry", post)).to.equal("409 no_uplink");
    expect(await codeOf("/api/v1/dead-letters/7/retry", post)).to.equal("404 not_found");
    expect(await ask("/api/v1/dead-letters/5", { method: "DELETE" })).to.deep.include({ body: { purged: 1 } });
    expect(await codeOf("/api/v1/dead-letters/7", { method: "DELETE" })).to.equal("404 not_found");
  });

  it("is no door for a page in a browser", async () => {
    const path = "/api/v1/dead-letters/5/retry";
    const json = { "Content-Type": "application/json" };
    const own = `127.0.0.1:${server.port}`;
    const asked = (headers: Record<string, string>, body?: string): Asked => ({
      method: "POST",
      headers,
      ...(body === undefined ? {} : { body }),
    });
    expect(await codeOf(path, asked({ Host: "evil.example" }))).to.equal("421 wrong_host");
    expect(await codeOf(path, asked({ Origin: "http://evil.example" }))).to.equal("403 wrong_origin");
    expect(await codeOf(path, asked({ Origin: "null" }))).to.equal("403 wrong_origin");
    expect(await codeOf(path, asked({ "Sec-Fetch-Site": "cross-site" }))).to.equal("403 wrong_origin");
    expect(await codeOf(path, asked({ "Sec-Fetch-Site": "same-site" }))).to.equal("403 wrong_origin");
    for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
      expect(await codeOf(path, asked({ "Content-Type": type }, "{}")), type).to.equal("415 unsupported_media_type");
    expect(await codeOf(path, asked({}, "{}"))).to.equal("415 unsupported_media_type");
    expect(await codeOf(path, asked(json, "{"))).to.equal("400 bad_request");
    expect(await codeOf(path, asked(json, "[]"))).to.equal("400 bad_request");
    expect(await codeOf(path, asked(json, '{"all":true}'))).to.equal("400 bad_request");
    expect(await codeOf(path, asked(json, " ".repeat(70_000)))).to.equal("413 too_large");
    const good = { ...json, Host: own, Origin: `http://${own}`, "Sec-Fetch-Site": "same-origin" };
    expect((await ask(path, asked(good, "{}"))).status).to.equal(200);
  });

  it("has nothing to log of who goes away in the middle of a request", async () => {
    lines.length = 0;
    const ways: NetConnectOpts[] = [{ host: "127.0.0.1", port: server.port }, { path: join(dir, "control.sock") }];
    for (const where of ways)
      for (const path of ["uplinks/cloud/pause", "backup"]) {
        const socket = connect(where);
        socket.write(`POST /api/v1/${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`);
        socket.write("Content-Length: 100\r\nExpect: 100-continue\r\n\r\n{");
        await once(socket, "data"); // the request is being read
        socket.destroy();
        await once(socket, "close");
      }
    for (const own of [false, true]) await ask("/api/v1/queues", { control: own });
    readFault = new Error("a fault of ours is logged");
    await ask("/api/v1/dead-letters/5");
    await until("logged", () => lines.length > 0);
    expect(lines.map(({ fields }) => fields["err"])).to.deep.equal(["a fault of ours is logged"]);
    expect(calls).to.deep.equal([]);
  });

  it("pauses and resumes, and says what did not reach the disk", async () => {
    const post: Asked = { method: "POST" };
    const one = await ask("/api/v1/uplinks/cloud");
    expect(one.body).to.deep.include({ name: "cloud", link: "up", url: "mqtt://a" });
    expect((await ask("/api/v1/uplinks/cloud/dropped")).body).to.deep.equal({
      dropped: [
        {
          topic: "plant/1",
          messages: 1,
          reason: "full",
          rule: "plant/#",
          uplink: "cloud",
          at: "1970-01-01T00:00:00.000Z",
        },
        { topic: null, messages: 9, reason: "full", rule: "plant/#", uplink: "cloud", at: "1970-01-01T00:00:00.000Z" },
      ],
    });
    for (const path of ["nobody", "nobody/dropped", "old%2Fone"])
      expect(await codeOf(`/api/v1/uplinks/${path}`)).to.equal("404 not_found");
    const paused = await ask("/api/v1/uplinks/cloud/pause", post);
    expect(paused).to.deep.include({ status: 200, body: { name: "cloud", paused: true } });
    await ask("/api/v1/uplinks/cloud/resume", post);
    expect(calls).to.deep.equal([
      ["pause", true],
      ["pause", false],
    ]);
    expect(await codeOf("/api/v1/uplinks/old%2Fone/pause", post)).to.equal("404 not_found");
    durable = false;
    expect(await codeOf("/api/v1/uplinks/cloud/pause", post)).to.equal("503 TG_STORE_FAILED");
  });

  it("lists queues, orphaned ones as well", async () => {
    const { body } = await ask("/api/v1/queues");
    expect(body).to.deep.equal([
      {
        ...{ name: "cloud", state: "up", paused: false, messages: 2, bytes: 30, inflight: 1, oldestAgeMs: 1000 },
        dropped: { full: 3 },
      },
      {
        ...{
          name: "old/one",
          state: "orphaned",
          paused: false,
          messages: 7,
          bytes: 70,
          inflight: 0,
          oldestAgeMs: null,
        },
        dropped: {},
      },
    ]);
  });

  it("says which methods there are", async () => {
    const { status, allow, body } = await ask("/api/v1/dead-letters/5", { method: "PUT" });
    expect([status, allow, body.error?.code]).to.deep.equal([405, "GET, DELETE", "method_not_allowed"]);
    expect((await ask("/api/v1/uplinks/cloud/pause")).status).to.equal(405);
  });

  it("leaves what concerns many at once, and what waits, to control.sock", async () => {
    const everything: Array<[string, string, Asked, unknown]> = [
      ["POST", "/api/v1/dead-letters/retry", { body: '{"reason":"0x97"}' }, "retry all"],
      ["POST", "/api/v1/dead-letters/purge", { body: '{"until":"5"}' }, "purge all"],
      ["POST", "/api/v1/queues/old%2Fone/purge", {}, "purge queue"],
      ["GET", "/api/v1/queues/cloud?limit=3", {}, "peek"],
    ];
    for (const [method, path, asked, call] of everything) {
      const headers = { "Content-Type": "application/json" };
      expect(await codeOf(path, { ...asked, method, headers }), path).to.match(/^40[45] /);
      expect(calls).to.deep.equal([]);
      expect((await ask(path, { ...asked, method, headers, control: true })).status, path).to.equal(200);
      expect((calls.pop() as unknown[])[0]).to.equal(call);
    }
    const { body } = await ask("/api/v1/queues/cloud", { control: true });
    expect(body).to.deep.include({ more: true });
    expect((body["messages"] as object[])[0]).to.deep.include({ seq: 4, priority: 3, inFlight: true, topic: "t/a" });
    expect(await codeOf("/api/v1/queues/none", { control: true })).to.equal("404 not_found");
    expect(await codeOf("/api/v1/queues/none/purge", { method: "POST", control: true })).to.equal("404 not_found");
  });
});
