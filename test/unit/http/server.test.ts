import { once } from "node:events";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import type { Duplex } from "node:stream";
import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { type HttpHandle, listenHttp } from "../../../src/http/server.ts";
import { until } from "../../helpers/wait.ts";

describe("http/server", () => {
  let server: HttpHandle;
  let reasons: string[] = [];

  before(async () => {
    const views = {
      health: () => reasons,
      metrics: () => "x 1\n",
      status: () => ({ gateway: { id: "g1" }, uplinks: [{ name: "cloud" }] }),
    };
    server = await listenHttp({ host: "127.0.0.1", port: 0 }, views, silentLog);
  });
  after(() => server.close());

  function get(
    path: string,
    headers: Record<string, string> = {},
    method = "GET",
  ): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const asked = request({ host: "127.0.0.1", port: server.port, path, method, headers }, (response) => {
        let body = "";
        response.on("data", (chunk) => (body += chunk));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      });
      asked.on("error", reject);
      asked.end();
    });
  }

  it("says how it is", async () => {
    expect(await get("/health")).to.deep.equal({ status: 200, body: '{"status":"ok","reasons":[]}\n' });
    reasons = ["the disk refuses writes"];
    const failing = await get("/health");
    reasons = [];
    expect(failing.status).to.equal(503);
    expect(JSON.parse(failing.body)).to.have.deep.property("reasons", ["the disk refuses writes"]);
  });

  it("answers metrics, status and its parts", async () => {
    expect((await get("/metrics")).body).to.equal("x 1\n");
    expect(JSON.parse((await get("/api/v1/status?x=1")).body)).to.have.nested.property("gateway.id", "g1");
    expect(JSON.parse((await get("/api/v1/uplinks")).body)).to.deep.equal([{ name: "cloud" }]);
  });

  it("says what it does not know, in the contract's form", async () => {
    for (const path of ["/nothing", "/api/v1/nothing", "/api/v1/constructor", "/api/v1/__proto__"]) {
      const { status, body } = await get(path);
      expect(status, path).to.equal(404);
      expect(JSON.parse(body)).to.have.nested.property("error.code", "not_found");
    }
    expect((await get("/health", {}, "POST")).status).to.equal(405);
  });

  it("says where it has something, and what a later version will have", async () => {
    const said = async (path: string, method = "GET"): Promise<string> => {
      const { status, body } = await get(path, {}, method);
      const { error } = JSON.parse(body) as { error: { message: string } };
      return `${status} ${error.message.split(";", 1)[0]}`;
    };
    expect(await said("/nothing")).to.equal("404 there is no such page");
    expect(await said("/nothing", "POST")).to.equal("404 there is no such page"); // not: only GET is answered
    expect(await said("/")).to.equal("404 the dashboard is not yet available");
    expect(await said("/api/v1/publish", "POST")).to.equal("404 POST /api/v1/publish is not yet available");
    expect(await said("/api/v1/devices")).to.equal("404 GET /api/v1/devices is not yet available");
    expect(await said("/api/v1/uplinks", "DELETE")).to.equal("405 only GET and HEAD are answered here");
    expect((await get("/nothing")).body).to.contain("/api/v1/{status,clients,sources,uplinks,queues,dead-letters}");
  });

  it("is no door for a page in a browser: Host and Origin", async () => {
    expect((await get("/api/v1/status", { Host: "evil.example" })).status).to.equal(421);
    expect((await get("/api/v1/status", { Host: "127.0.0.1.evil.example" })).status).to.equal(421);
    expect((await get("/api/v1/status", { Origin: "http://evil.example" })).status).to.equal(403);
    const own = `127.0.0.1:${server.port}`;
    expect((await get("/api/v1/status", { Host: own, Origin: `http://${own}` })).status).to.equal(200);
  });

  it("has no MQTT where nobody takes it", async () => {
    const socket = connect(server.port, "127.0.0.1");
    socket.write(`GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
    expect((await once(socket, "data")).toString()).to.match(/^HTTP\/1\.1 404 /);
    await once(socket, "close");
  });

  describe("a request that offers another protocol, such as h2c of curl --http2 and of Java's HttpClient", () => {
    const offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";

    async function answerTo(...pieces: string[]): Promise<string> {
      const socket = connect(server.port, "127.0.0.1");
      let text = "";
      socket.on("data", (data) => (text += data));
      for (const piece of pieces) await new Promise((sent) => socket.write(piece, sent));
      await once(socket, "close");
      return text;
    }

    it("is answered as if it did not", async () => {
      const text = await answerTo(`GET /health HTTP/1.1\r\nHost: localhost\r\n${offer}\r\n`);
      expect(text).to.match(/^HTTP\/1.1 200 OK\r\n[\s\S]*"status":"ok"/);
    });

    it("its body too, and its Host and Origin are looked at", async () => {
      const post = (headers: string): string[] => [
        `POST /health HTTP/1.1\r\n${headers}\r\n${offer}Content-Length: 5\r\n\r\nab`,
        "cde",
      ];
      expect(await answerTo(...post("Host: localhost"))).to.match(/^HTTP\/1.1 405 [\s\S]*method_not_allowed/);
      expect(await answerTo(...post("Host: evil.example"))).to.match(/^HTTP\/1.1 421 [\s\S]*wrong_host/);
      expect(await answerTo(...post("Host: localhost\r\nOrigin: null"))).to.match(/^HTTP\/1.1 403 [\s\S]*wrong_origin/);
    });
  });

  describe("MQTT over WebSocket", () => {
    let door: HttpHandle;
    let taken: Array<{ socket: Duplex; head: string }>;
    const clients: Socket[] = [];

    beforeEach(async () => {
      taken = [];
      const views = { health: () => [], metrics: () => "", status: () => ({}) };
      door = await listenHttp({ host: "127.0.0.1", port: 0 }, views, silentLog, (_request, socket, head) => {
        taken.push({ socket, head: head.toString() });
      });
    });
    afterEach(async () => {
      for (const client of clients.splice(0)) client.destroy();
      for (const { socket } of taken) socket.destroy();
      await door.close();
    });

    function ask(path: string, headers: string): Socket {
      const socket = connect(door.port, "127.0.0.1");
      socket.on("error", () => {});
      clients.push(socket);
      socket.write(`GET ${path} HTTP/1.1\r\n${headers}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbehind`);
      return socket;
    }
    const own = (): string => `127.0.0.1:${door.port}`;

    it("is given away on /mqtt, with what came behind the request", async () => {
      ask("/mqtt", `Host: ${own()}`);
      ask("/mqtt?x=1", `Host: localhost:${door.port}\r\nOrigin: http://localhost:${door.port}`);
      await until("both", () => taken.length === 2);
      expect(taken.map(({ head }) => head)).to.deep.equal(["behind", "behind"]);
    });

    it("is no door for a page in a browser: Host and Origin; nor on another path", async () => {
      for (const [path, headers, status] of [
        ["/mqtt", "Host: evil.example", 421],
        ["/mqtt", "X: y", 421],
        ["/mqtt", `Host: ${own()}\r\nOrigin: http://evil.example`, 403],
        ["/mqtt", `Host: ${own()}\r\nOrigin: null`, 403],
        ["/mqtt", `Host: ${own()}\r\nOrigin: https://${own()}`, 403],
        ["/", `Host: ${own()}`, 404],
        ["/mqtt/", `Host: ${own()}`, 404],
      ] as const) {
        const socket = ask(path, headers);
        const [answer] = await once(socket, "data");
        // Node itself refuses a request of HTTP/1.1 without a Host.
        expect(String(answer), headers).to.match(new RegExp(`^HTTP/1.1 ${headers === "X: y" ? "4(00|21)" : status} `));
        await until("it is closed", () => socket.destroyed);
      }
      expect(taken).to.deep.equal([]);
    });

    it("takes no place from the dashboard, and outlives the server", async () => {
      for (let count = 0; count < 70; count += 1) ask("/mqtt", `Host: ${own()}`);
      await until("all of them", () => taken.length === 70);
      const idle = Array.from({ length: 64 }, () => {
        const socket = connect(door.port, "127.0.0.1");
        clients.push(socket.on("error", () => {}));
        return socket;
      });
      await until("as many of HTTP as there may be", () => idle.every((socket) => socket.readyState === "open"));
      const late = connect(door.port, "127.0.0.1");
      clients.push(late.on("error", () => {}));
      await until("one too many is out", () => late.destroyed);
      await door.close();
      await until("those of HTTP are out", () => idle.every((socket) => socket.destroyed));
      expect(taken.every(({ socket }) => !socket.destroyed)).to.equal(true);
    });
  });

  it("says which port is in use", async () => {
    const views = { health: () => [], metrics: () => "", status: () => ({}) };
    const error = await listenHttp({ host: "127.0.0.1", port: server.port }, views, silentLog).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).to.have.property("code", "TG_LISTEN");
    expect(error).to.have.property("message").that.contains("in use");
  });

  it("has a url that can be used, on IPv6 too", async function () {
    const addresses = Object.values(networkInterfaces()).flatMap((of = []) => of.map(({ address }) => address));
    if (!addresses.includes("::1")) this.skip();
    const views = { health: () => [], metrics: () => "", status: () => ({}) };
    const six = await listenHttp({ host: "::1", port: 0 }, views, silentLog);
    expect(six.url).to.equal(`http://[::1]:${six.port}`);
    expect((await fetch(`${six.url}/health`)).status).to.equal(200);
    const error = await listenHttp({ host: "::1", port: six.port }, views, silentLog).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).to.have.property("message").that.contains(`${six.url} cannot be opened`);
    await six.close();
  });
});
