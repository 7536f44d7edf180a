import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect } from "chai";
import { turn } from "../unit/journal/support.ts";
import { withinTurns } from "./turnLimit.ts";

describe("crash model: a seed that does not end", () => {
  it("that waits for what never comes is ended after so many turns", async () => {
    const error: unknown = await withinTurns(1, new Promise<void>(() => undefined), 1000).catch((thrown) => thrown);
    expect(String(error)).to.contain("does not end: 1000 turns");
  });

  it("that goes round and round is ended after so many turns", async () => {
    let stop = false;
    const round = async (): Promise<void> => {
      while (!stop) await turn();
    };
    const error: unknown = await withinTurns(1, round(), 1000).catch((thrown) => thrown);
    stop = true;
    expect(String(error)).to.contain("does not end");
  });

  it("in one turn is ended by another thread, which names it", function () {
    this.timeout(120_000);
    const path = join(import.meta.dirname, "turnLimit.ts");
    const code = `import { watchTurns, withinTurns } from ${JSON.stringify(path)};
      watchTurns(1);
      await withinTurns(4711, new Promise((resolve) => setImmediate(() => { for (;;); })));`;
    const { stdout, signal } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "--eval", code], {
      cwd: join(import.meta.dirname, "..", ".."),
      encoding: "utf8",
    });
    expect({ stdout, signal }).to.deep.equal({ stdout: "seed 4711: one turn does not end\n", signal: "SIGKILL" });
  });

  it("what ends says what it did", async () => {
    expect(await withinTurns(1, Promise.resolve(7))).to.equal(7);
  });
});
