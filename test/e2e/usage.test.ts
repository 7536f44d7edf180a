import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { runProgram } from "../helpers/gatewayProcess.ts";

describe("e2e: the command line", () => {
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  it("a command that is mistyped: named, with the nearest one, exit 2", async () => {
    const ended = await runProgram(["statsu"], { cwd: dir });
    expect(ended.code).to.equal(2);
    expect(ended.stderr).to.contain("unknown command 'statsu'").and.to.contain("status?");
    expect(ended.stderr).to.contain("Usage: tidegate [options] [command]");
  });

  it("its options do not hide that", async () => {
    const ended = await runProgram(["chekc", "-c", "x.yaml"], { cwd: dir });
    expect(ended.code).to.equal(2);
    expect(ended.stderr).to.contain("unknown command 'chekc'").and.to.contain("check?");
  });

  it("a command of a later version is said to be one, exit 2", async () => {
    for (const args of [["init"], ["decode", "cbor", "a0"], ["test", "x"], ["doctor", "-c", "x"]]) {
      const ended = await runProgram(args, { cwd: dir });
      expect(ended.code, args[0]).to.equal(2);
      expect(ended.stderr, args[0]).to.contain(`${args[0]} is not yet available`);
    }
  });

  it("without a command it runs, options or not", async () => {
    const ended = await runProgram(["-c", "none.yaml"], { cwd: dir });
    expect(ended.code).to.equal(2);
    expect(ended.stderr).to.contain("none.yaml: no such file");
  });
});
