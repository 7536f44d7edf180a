import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { status } from "../../../src/cli/status.ts";

/** What a gateway answers on its control.sock: status and body by path. */
type Answers = Readonly<Record<string, readonly [status: number, body: unknown]>>;

describe("tidegate status, whatever the gateway answers", () => {
  let dir = "";
  let server: Server | undefined;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    await writeFile(join(dir, "tidegate.yaml"), "gateway: { dataDir: . }\n");
  });
  afterEach(async () => {
    await new Promise((resolve) => (server === undefined ? resolve(0) : server.close(resolve)));
    await rm(dir, { recursive: true, force: true });
  });

  async function asked(answers: Answers, json = false): Promise<{ code: number; out: string; err: string }> {
    server = createServer((request, response) => {
      const [code, body] = answers[request.url ?? ""] ?? [200, { reasons: [] }];
      response.writeHead(code, { Connection: "close" }).end(JSON.stringify(body));
    });
    await new Promise<void>((resolve) => server?.listen(join(dir, "control.sock"), resolve));
    const [out, err]: [string[], string[]] = [[], []];
    const io = { out: (line: string) => void out.push(line), err: (line: string) => void err.push(line) };
    const code = await status({ config: join(dir, "tidegate.yaml"), json }, io);
    return { code, out: out.join("\n"), err: err.join("\n") };
  }

  for (const code of [401, 403, 404, 500, 503])
    it(`${code} is no status: what the gateway said is an error, exit 1`, async () => {
      const answers: Answers = { "/api/v1/status": [code, { error: { code: "no", message: "not for you" } }] };
      const { out, err, ...ended } = await asked(answers, code !== 404);
      expect(ended.code).to.equal(1);
      expect(out).to.equal("");
      expect(err).to.equal("tidegate: not for you");
    });

  it("an error without words is named by its status and path", async () => {
    const { code, err } = await asked({ "/api/v1/status": [500, null] });
    expect(code).to.equal(1);
    expect(err).to.equal("tidegate: the gateway answered GET /api/v1/status with status 500");
  });
});
