import { execFileSync } from "node:child_process";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { configFile } from "../../../src/cli/check.ts";
import { Reloads } from "../../../src/cli/reloads.ts";
import type { Config } from "../../../src/config/load.ts";
import { until } from "../../helpers/wait.ts";

/** A log that keeps the fields of its errors. */
function errorLog() {
  const errors: unknown[] = [];
  const error = (fields: object): void => void errors.push(fields);
  return { errors, log: { ...silentLog, setLevel: () => {}, always: () => {}, error } };
}

describe("cli: what SIGHUP reads", () => {
  const home = process.cwd();
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    process.chdir(dir);
  });
  afterEach(async () => {
    process.chdir(home);
    process.removeAllListeners("SIGHUP");
    await rm(dir, { recursive: true, force: true });
  });

  it("a gateway that was started without a config file takes up one that is written later", async () => {
    const taken: Config[] = [];
    const log = { ...silentLog, setLevel: () => {}, always: () => {} };
    const reloads = new Reloads({}, configFile({}), log);
    reloads.serve({ reload: async (config) => void taken.push(config) });
    process.emit("SIGHUP");
    await until("read without a file", () => taken.length === 1);
    expect(taken[0]?.access.rules).to.deep.equal([]);
    await writeFile("tidegate.yaml", 'access: { rules: [ { deny: all, topic: "#" } ] }\n');
    process.emit("SIGHUP");
    await until("read with it", () => taken.length === 2);
    expect(taken[1]?.access.rules).to.have.length(1);
    reloads.end();
  });

  it("one that was started with a file says so when that is gone, and does not go back to the defaults", async () => {
    await writeFile("tidegate.yaml", "gateway: { id: a }\n");
    const { log, errors } = errorLog();
    const reloads = new Reloads({}, configFile({}), log);
    reloads.serve({ reload: async () => expect.fail("reloaded") });
    await rm("tidegate.yaml");
    process.emit("SIGHUP");
    await until("said", () => errors.length >= 2);
    expect(errors[0]).to.deep.equal({ at: "tidegate.yaml: no such file (a YAML file)" });
    reloads.end();
  });

  it("a pipe, which is empty the second time, is not taken for a config without rules", async () => {
    const { log, errors } = errorLog();
    execFileSync("mkfifo", ["pipe"]);
    const reloads = new Reloads({ config: "pipe" }, "pipe", log);
    const writer = await open("pipe", "r+"); // or a second reading would wait for one for ever
    reloads.serve({ reload: async () => expect.fail("reloaded") });
    process.emit("SIGHUP");
    await until("said", () => errors.length >= 2);
    expect(errors[0]).to.deep.equal({ at: "pipe: a pipe cannot be read twice (a YAML file)" });
    reloads.end();
    await writer.close();
  });
});
