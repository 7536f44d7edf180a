import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { needPeers, runPeer } from "../helpers/peers.ts";

describe("peer: systemd-analyze", () => {
  const unit = join(import.meta.dirname, "..", "..", "systemd", "tidegate.service");

  it("finds nothing wrong with the unit file", async function () {
    needPeers(this, "systemd-analyze");
    // verify also looks for ExecStart's program and the documentation: point them at what this machine has.
    const dir = await mkdtemp(join(tmpdir(), "tidegate-"));
    const copy = join(dir, "tidegate.service");
    await writeFile(
      copy,
      (await readFile(unit, "utf8")).replace("ExecStart=/usr/bin/node", `ExecStart=${process.execPath}`),
    );
    const { code, output } = await runPeer("systemd-analyze", ["verify", "--man=no", copy]);
    await rm(dir, { recursive: true, force: true });
    expect(output.split("\n").filter((line) => line.includes("tidegate"))).to.deep.equal([]);
    expect(code, output).to.equal(0);
  });

  it("rates its exposure as OK", async function () {
    needPeers(this, "systemd-analyze");
    const { output } = await runPeer("systemd-analyze", ["security", "--offline=true", "--no-pager", unit]);
    const level = Number(/Overall exposure level for tidegate\.service: ([\d.]+)/.exec(output)?.[1]);
    expect(level, output.slice(-300)).to.be.below(3);
  });
});
