import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { parse } from "yaml";
import {
  compareDevice,
  compareObservation,
  firstFalling,
  firstOutOfOrder,
  isGood,
  type NumberedArrival,
  openEnvelope,
  tableOf,
  unwrapSeq,
} from "../../../firmware-sim/demo/compare.ts";
import { demoConfig } from "../../../firmware-sim/demo/config.ts";
import { readCounter } from "../../../firmware-sim/demo/gateway.ts";
import { freePort } from "../../../firmware-sim/demo/ports.ts";
import { runScenario } from "../../../firmware-sim/demo/scenario.ts";
import { ptyProblem } from "../../../firmware-sim/ptyLink.ts";

const arrivals = (...numbers: number[]): NumberedArrival[] =>
  numbers.map((number, at) => ({ id: `gw/1/${at}`, number, right: true }));
const serial = { name: "boiler", seenBy: "ACK", order: "acks" } as const;
const poster = { name: "poster", seenBy: "2.xx", order: "rising" } as const;

describe("firmware-sim: the demo's judgement", () => {
  it("finds what is missing, by number", () => {
    const report = compareDevice(poster, [1, 2, 3, 4], arrivals(1, 3));
    expect(report).to.deep.include({ accepted: 4, inCloud: 2, missing: 2, missingNumbers: [2, 4] });
    expect(isGood(report)).to.equal(false);
    expect(isGood(compareDevice(poster, [1, 2], arrivals(1, 2, 3))), "more than acknowledged is no loss").to.equal(
      true,
    );
  });

  it("tells copies of the uplink from copies of the device", () => {
    const [first, second] = arrivals(1, 2) as [NumberedArrival, NumberedArrival];
    const report = compareDevice(poster, [1, 2], [first, second, second, { ...first, id: "gw/1/9" }]);
    expect(report).to.include({ sentTwice: 1, takenTwice: 1, inCloud: 2, order: "ok" });
    expect(isGood(report)).to.equal(true);
  });

  it("checks a resending device by its ACKs, others by rising numbers", () => {
    // 2 was torn on the wire and resent after 3: in order by ACK, not by number.
    expect(isGood(compareDevice(serial, [1, 3, 2], arrivals(1, 3, 2)))).to.equal(true);
    expect(isGood(compareDevice(poster, [1, 3, 2], arrivals(1, 3, 2)))).to.equal(false);
    // 2 was taken, its ACK lost, and taken again after 3.
    expect(isGood(compareDevice(serial, [1, 3, 2], arrivals(1, 2, 3, 2)))).to.equal(true);
    expect(isGood(compareDevice(serial, [1, 3, 2], arrivals(1, 2, 3)))).to.equal(false);
    expect(firstOutOfOrder([1, 2], [2, 1])).to.equal(2);
    expect(firstFalling([1, 2, 4, 2, 3])).to.equal(3);
    expect(firstFalling([1, 2, 1, 3])).to.equal(undefined);
  });

  it("allows the cloud more observations than were counted before a kill, never fewer", () => {
    expect(isGood(compareObservation("yard", 2, arrivals(1, 2, 5)))).to.equal(true);
    expect(compareObservation("yard", 4, arrivals(1, 2, 5)).missing).to.equal(1);
    expect(isGood(compareObservation("yard", 3, arrivals(1, 5, 2)))).to.equal(false);
  });

  it("notices values that are not the device's", () => {
    const [first, second] = arrivals(1, 2) as [NumberedArrival, NumberedArrival];
    const report = compareDevice(poster, [1, 2], [first, { ...second, right: false }]);
    expect(report.wrong).to.deep.equal([2]);
    expect(isGood(report)).to.equal(false);
    expect(tableOf([report]).at(-1)).to.contain("1 wrong");
  });

  it("unwraps 16-bit numbers near a reference, in both directions", () => {
    expect(unwrapSeq(2, 65_534)).to.equal(65_538);
    expect(unwrapSeq(65_534, 65_538)).to.equal(65_534);
    expect(unwrapSeq(5, 5 + 3 * 65_536)).to.equal(5 + 3 * 65_536);
  });

  it("opens the envelope, and says what is wrong with one", () => {
    const envelope = { gw: "g", epoch: 1, seq: 7, pri: 5, ts: "2026-01-01T00:00:00Z", topic: "a/b", data: { n: 1 } };
    const open = (topic: string, value: unknown) =>
      openEnvelope({ topic, payload: Buffer.from(JSON.stringify(value)), clientId: "g", userProperties: {} }, "g");
    expect(open("gw/g/a/b", envelope)).to.deep.equal({ id: "g/1/7", topic: "a/b", late: false, data: { n: 1 } });
    expect(open("gw/g/a/b", { ...envelope, late: 1 })).to.include({ late: true });
    for (const wrong of [{ ...envelope, gw: "x" }, { ...envelope, seq: "7" }, { ...envelope, ts: "?" }, null, []]) {
      expect(open("gw/g/a/b", wrong), JSON.stringify(wrong)).to.be.a("string");
    }
    expect(open("gw/g/other", envelope)).to.be.a("string");
  });

  it("reads a counter out of Prometheus text", () => {
    const text =
      '# TYPE c counter\nc{source="yard",type="coap"} 4\nc{type="x",source="yard"} 3\nc{source="yard2"} 9\ncc{source="yard"} 1\n';
    expect(readCounter(text, "c", { source: "yard" })).to.equal(7);
    expect(readCounter(text, "c", { source: "none" })).to.equal(undefined);
  });

  it("writes a config that is YAML, with and without the serial source", async () => {
    const ports = {
      mqttPort: await freePort("tcp"),
      httpPort: 1,
      cloudPort: 2,
      coapServerPort: await freePort("udp"),
      observablePort: 3,
    };
    const names = (serialPath: string | undefined): string[] => {
      const config = parse(demoConfig({ ...ports, gatewayId: "g", serialPath })) as {
        sources: Array<{ name: string }>;
      };
      return config.sources.map(({ name }) => name);
    };
    expect(names("/tmp/x/boiler")).to.deep.equal(["boiler", "yard", "field"]);
    expect(names(undefined)).to.deep.equal(["yard", "field"]);
  });
});

describe("firmware-sim: the demo, with a gateway that errs", function () {
  this.timeout(240_000);

  const program = [process.execPath, "--import", "tsx", join(import.meta.dirname, "standInGateway.ts")];

  it("notices what was lost, put in the wrong order or changed, and cleans up", async () => {
    const folders = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith("tidegate-demo-"));
    const hasSerial = (await ptyProblem()) === undefined;
    const altered = hasSerial ? "plant" : "sensors/s4";
    const lines: string[] = [];
    const result = await runScenario({
      gatewayCommand: ["/usr/bin/env", "LOSE=sensors/s1", "SWAP=field", `ALTER=${altered}`, ...program],
      durationMs: 5000,
      cloudDownMs: 1500,
      allowWithoutSerial: true,
      print: (line) => lines.push(line),
    });
    const report = (name: string) => result.reports.find(({ device }) => device.startsWith(name));
    const text = lines.join("\n");
    expect(result.ok, text).to.equal(false);
    expect(report("s1")?.missing, text).to.be.greaterThan(0);
    expect(report("greenhouse")?.order, text).not.to.equal("ok");
    expect(report(hasSerial ? "boiler" : "s4")?.wrong, text).not.to.deep.equal([]);
    for (const name of ["s2", "s3", "meter5", "meter6", "yard"]) {
      const each = report(name);
      expect(each !== undefined && isGood(each) && each.accepted > 0, `${name}\n${text}`).to.equal(true);
    }
    expect(result.commandMs === undefined, text).to.equal(!hasSerial);
    expect(result.readyMs).to.have.length(2);
    const mine = lines.join().match(/tidegate-demo-\w+/)?.[0];
    expect(folders().filter((name) => name === mine)).to.deep.equal([]);
    expect(hasSerial).to.equal(mine !== undefined);
  });

  it("says so when the gateway does not start, and cleans up", async () => {
    const gatewayCommand = [process.execPath, "-e", "console.error('no such luck'); process.exit(3)"];
    let message = "";
    await runScenario({ gatewayCommand, allowWithoutSerial: true }).catch((error: Error) => {
      message = error.message;
    });
    expect(message).to.contain("ended with 3").and.to.contain("no such luck");
  });

  it("ends early when it is told to", async () => {
    const abort = new AbortController();
    const gatewayCommand = [
      process.execPath,
      "-e",
      `process.stdout.write('{"msg":"ready"}\\n'); setInterval(() => {}, 1000)`,
    ];
    let reason = "";
    const print = (line: string): void => {
      if (line.includes("begin to send")) abort.abort(new Error("enough"));
    };
    await runScenario({ gatewayCommand, allowWithoutSerial: true, signal: abort.signal, print }).catch(
      (error: Error) => {
        reason = error.message;
      },
    );
    expect(reason).to.equal("enough");
  });
});
