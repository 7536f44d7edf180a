import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { queueDropped } from "../../../src/cli/queues.ts";

describe("cli: queue dropped", () => {
  let dir: string;
  let gateway: Server;

  const topic = "a\u009b2Jb\u202e\u001b";
  const dropped = [{ at: "2026-01-01T00:00:00.000Z", reason: "full", rule: "#", messages: 1, topic }];

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    await writeFile(join(dir, "tidegate.yaml"), "gateway: { dataDir: . }");
    gateway = createServer((_, response) => response.end(JSON.stringify({ dropped })));
    await new Promise<void>((resolve) => gateway.listen(join(dir, "control.sock"), resolve));
  });
  afterEach(async () => {
    gateway.close();
    await rm(dir, { recursive: true, force: true });
  });

  it("shows topics that others chose: nothing in them writes to the terminal, and --json has them as they are", async () => {
    for (const json of [false, true]) {
      const lines: string[] = [];
      const io = { out: (line: string) => void lines.push(line), err: expect.fail };
      expect(await queueDropped("cloud", { config: join(dir, "tidegate.yaml"), json }, io)).to.equal(0);
      const text = lines.join("\n");
      expect(text.replaceAll("\n", "")).to.not.match(/[\p{Cc}\p{Cf}]/u);
      if (json) expect(JSON.parse(text)).to.deep.equal(dropped);
    }
  });
});
