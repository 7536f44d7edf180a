import { join } from "node:path";
import { expect } from "chai";
import { runScenario } from "../../firmware-sim/demo/scenario.ts";
import { ptyProblem } from "../../firmware-sim/ptyLink.ts";

const dist = join(import.meta.dirname, "..", "..", "dist");

describe("e2e: the main job", () => {
  it("serial, CoAP and MQTT readings over a lost link and a SIGKILL: every acknowledged one is in the cloud, in order", async function () {
    this.timeout(180_000);
    const noPty = await ptyProblem();
    if (noPty !== undefined) process.stdout.write(`      serial: skipped on this platform: ${noPty}\n`);
    const lines: string[] = [];
    const result = await runScenario({
      gatewayCommand: [process.execPath, join(dist, "main.js")],
      simCommand: [process.execPath, join(dist, "firmware-sim", "sim.js")],
      durationMs: 20_000,
      cloudDownMs: 6_000,
      allowWithoutSerial: noPty !== undefined,
      print: (line) => lines.push(line),
    });
    const story = lines.join("\n");
    expect(result.problems, story).to.deep.equal([]);
    expect(result.ok, story).to.equal(true);
    expect(result.readyMs, "two starts: the second after the kill").to.have.length(2);
    expect(result.late, "some readings waited for the link").to.be.above(0);
    for (const report of result.reports) {
      expect(report.accepted, report.device).to.be.above(10);
      expect(report.missing, `${report.device}\n${story}`).to.equal(0);
    }
  });
});
