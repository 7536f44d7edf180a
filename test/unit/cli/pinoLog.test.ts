import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect } from "chai";

describe("the log", () => {
  it("writes what an Error says, under either name, and control characters of a client id escaped", () => {
    const path = join(import.meta.dirname, "..", "..", "..", "src", "cli", "pinoLog.ts");
    const program = `
      import { createLog } from ${JSON.stringify(path)};
      createLog("info").error({ error: new Error("the disk is gone"), clientId: "a\\nb" }, "not written");
    `;
    const { stdout } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      encoding: "utf8",
    });
    const lines = stdout.trim().split("\n");
    expect(lines).to.have.length(1);
    const line = JSON.parse(lines[0] ?? "") as { error: { message: string; stack: string }; clientId: string };
    expect(line.error.message).to.equal("the disk is gone");
    expect(line.error.stack).to.match(/Error: the disk is gone/);
    expect(line.clientId).to.equal("a\nb");
  });

  it("leaves nothing in it that a terminal obeys, and says the same to a program", () => {
    const path = join(import.meta.dirname, "..", "..", "..", "src", "cli", "pinoLog.ts");
    const program = `
      import { createLog } from ${JSON.stringify(path)};
      createLog("info").child({ clientId: "a\u009b2Jb" }).info({ topic: "c\u202ed\u{e0001}" }, "published \u009d");
    `;
    const { stdout } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      encoding: "utf8",
    });
    expect(stdout.trimEnd()).to.not.match(/[\p{Cc}\p{Cf}]/u);
    const { clientId, topic, msg } = JSON.parse(stdout) as Record<string, string>;
    expect([clientId, topic, msg]).to.deep.equal(["a\u009b2Jb", "c\u202ed\u{e0001}", "published \u009d"]);
  });

  it("writes what others wait for at any level, and nothing else below it", () => {
    const path = join(import.meta.dirname, "..", "..", "..", "src", "cli", "pinoLog.ts");
    const program = `
      import { createLog } from ${JSON.stringify(path)};
      for (const level of ["warn", "error", "silent"]) {
        const log = createLog(level);
        log.info({ level }, "chatter");
        log.always({ at: level }, "ready");
      }
    `;
    const { stdout } = spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      encoding: "utf8",
    });
    const lines = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as { msg: string; at: string });
    expect(lines.map(({ msg, at }) => `${msg} ${at}`)).to.deep.equal(["ready warn", "ready error", "ready silent"]);
  });
});
