import { request } from "node:http";
import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { type HttpHandle, listenHttp } from "../../../src/http/server.ts";

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

  it("is no door for a page in a browser: Host and Origin", async () => {
    expect((await get("/api/v1/status", { Host: "evil.example" })).status).to.equal(421);
    expect((await get("/api/v1/status", { Host: "127.0.0.1.evil.example" })).status).to.equal(421);
    expect((await get("/api/v1/status", { Origin: "http://evil.example" })).status).to.equal(403);
    const own = `127.0.0.1:${server.port}`;
    expect((await get("/api/v1/status", { Host: own, Origin: `http://${own}` })).status).to.equal(200);
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
});
