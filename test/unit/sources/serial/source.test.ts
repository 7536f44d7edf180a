import { expect } from "chai";
import type { ReadingOutcome } from "../../../../src/base/contracts.ts";
import { TidegateError } from "../../../../src/base/errors.ts";
import type { SerialSourceOptions } from "../../../../src/sources/serial/options.ts";
import { ackOf, type Bench, makeBench } from "./fakes.ts";

const durable = (value: unknown): ReadingOutcome => ({ kind: "durable", value });

async function started(options: Partial<SerialSourceOptions> = {}): Promise<Bench> {
  const bench = makeBench(options);
  await bench.source.start();
  await bench.flush();
  return bench;
}

/** Unplugs, waits out the backoff, plugs in again. */
async function replug(bench: Bench): Promise<void> {
  bench.port().events.gone("unplugged");
  bench.clock.advance(5000);
  await bench.flush();
}

describe("serial source: readings", () => {
  it("acknowledges a reading when it is durable and not before", async () => {
    const bench = await started({ ack: ackOf });
    bench.port().send("t=1\n");
    expect(bench.taken.map(({ text }) => text)).to.deep.equal(["t=1"]);
    expect(bench.port().written).to.equal("");
    expect(bench.source.state().accepted).to.equal(0);
    bench.taken[0]?.settle(durable(1));
    expect(bench.port().written).to.equal("ack 1\n");
    expect(bench.source.state().accepted).to.equal(1);
    const text = bench.meter.expose();
    expect(text).to.contain('tidegate_source_accepted_total{source="boiler"} 1');
    expect(text).to.contain('tidegate_source_frames_total{source="boiler"} 1');
    expect(text).to.contain('tidegate_source_up{source="boiler"} 1');
    await bench.source.stop();
  });

  it("acknowledges in the order of arrival, whatever the order of settling", async () => {
    const bench = await started({ ack: ackOf });
    bench.port().send("a\nb\nc\n");
    bench.taken[2]?.settle(durable("c"));
    bench.taken[1]?.settle(durable("b"));
    expect(bench.port().written).to.equal("");
    bench.taken[0]?.settle(durable("a"));
    expect(bench.port().written).to.equal("ack a\nack b\nack c\n");
    await bench.source.stop();
  });

  it("does not acknowledge what was refused or cannot be decoded, counts why, and logs it once", async () => {
    const bench = await started({ ack: ackOf });
    bench.port().send("a\nb\nc\nd\ne\n");
    bench.taken[0]?.settle({ kind: "refused", reason: "full" });
    bench.taken[1]?.settle({ kind: "undecodable", why: "2 bytes too few" });
    bench.taken[2]?.settle({ kind: "undecodable", why: "2 bytes too few" });
    bench.taken[3]?.settle(durable("d"));
    bench.taken[4]?.settle({ kind: "refused", reason: "failed" });
    expect(bench.port().written).to.equal("ack d\n");
    expect(bench.dropped()).to.deep.equal({ full: 1, undecodable: 2, failed: 1 });
    expect(bench.lines.filter(({ fields }) => fields["why"] === "2 bytes too few")).to.have.length(1);
    expect(bench.meter.expose()).to.contain('tidegate_source_dropped_total{reason="undecodable",source="boiler"} 2');
    await bench.source.stop();
  });

  it("counts readings that became durable without an ack codec, and writes nothing", async () => {
    const bench = await started();
    bench.port().send("a\n");
    bench.taken[0]?.settle(durable("a"));
    expect(bench.source.state().accepted).to.equal(1);
    expect(bench.port().writes).to.have.length(0);
    await bench.source.stop();
  });

  it("counts an acknowledgement that cannot be encoded and goes on", async () => {
    const encode = (value: unknown): Uint8Array => {
      if (value === "bad") throw new TidegateError("TG_DECODE", "seq is missing");
      return Buffer.from(String(value));
    };
    const bench = await started({ ack: { encode } });
    bench.port().send("a\nb\n");
    bench.taken[0]?.settle(durable("bad"));
    bench.taken[1]?.settle(durable("b"));
    expect(bench.port().written).to.equal("b\n");
    expect(bench.dropped()).to.deep.equal({ ackEncode: 1 });
    expect(bench.source.state().accepted).to.equal(2);
    await bench.source.stop();
  });

  it("calls the ack codec as a method", async () => {
    class Codec {
      readonly #prefix = "ok ";
      encode(value: unknown): Uint8Array {
        return Buffer.from(this.#prefix + String(value));
      }
    }
    const bench = await started({ ack: new Codec() });
    bench.port().send("a\n");
    bench.taken[0]?.settle(durable(7));
    expect(bench.port().written).to.equal("ok 7\n");
    await bench.source.stop();
  });

  it("never acknowledges a reading of the port before to the one plugged in now", async () => {
    const bench = await started({ ack: ackOf });
    bench.port().send("a\nb\n");
    bench.port().events.gone("unplugged");
    bench.taken[0]?.settle(durable("a"));
    bench.clock.advance(5000);
    await bench.flush();
    expect(bench.ports).to.have.length(2);
    bench.port().send("c\n");
    bench.taken[1]?.settle(durable("b"));
    bench.taken[2]?.settle(durable("c"));
    expect(bench.ports[0]?.written).to.equal("");
    expect(bench.ports[1]?.written).to.equal("ack c\n");
    expect(bench.dropped()).to.deep.equal({ ackPortGone: 2 });
    expect(bench.source.state().accepted).to.equal(3);
    await bench.source.stop();
  });

  it("does not join the bytes of two ports to one frame, and takes none of the old port's", async () => {
    const bench = await started();
    bench.port().send("half");
    const old = bench.port();
    await replug(bench);
    old.send("late\n");
    bench.port().send("whole\n");
    expect(bench.taken.map(({ text }) => text)).to.deep.equal(["whole"]);
    await bench.source.stop();
  });

  it("drops what comes faster than it becomes durable, counted and unacknowledged", async () => {
    const bench = await started({ ack: ackOf, maxPending: 3 });
    bench.port().send("a\nb\nc\nd\ne\n");
    expect(bench.taken).to.have.length(3);
    for (const { text, settle } of bench.taken) settle(durable(text));
    bench.port().send("d\n");
    bench.taken[3]?.settle(durable("d"));
    expect(bench.port().written).to.equal("ack a\nack b\nack c\nack d\n");
    expect(bench.dropped()).to.deep.equal({ overload: 2 });
    expect(bench.port().paused).to.equal(false);
    await bench.source.stop();
  });

  it("holds the device off before that, when it has hardware flow control", async () => {
    const bench = await started({ maxPending: 8, rtscts: true });
    bench.port().send("1\n2\n3\n4\n5\n6\n");
    expect(bench.port().paused).to.equal(false);
    bench.port().send("7\n");
    expect(bench.port().paused).to.equal(true);
    for (const { settle } of bench.taken.slice(0, 2)) settle(durable(0));
    expect(bench.port().paused).to.equal(true);
    bench.taken[2]?.settle(durable(0));
    expect(bench.port().paused).to.equal(false);
    await bench.source.stop();
  });

  it("counts bytes that are no frame under the framer's reasons, and takes the frame after them", async () => {
    const bench = await started({ framing: { type: "slip", crc: "crc16-ccitt", maxFrameBytes: 16 } });
    bench.port().send(`\xc0garbage\xc0\xdbA\xc0${"x".repeat(100)}\xc0\x01\xc0123456789\xb1\x29\xc0`);
    expect(bench.taken.map(({ text }) => text)).to.deep.equal(["123456789"]);
    expect(bench.dropped()).to.deep.equal({ badCrc: 1, malformed: 1, tooLong: 1, tooShort: 1 });
    await replug(bench);
    bench.port().send("\xc0garbage\xc0");
    expect(bench.dropped()["badCrc"]).to.equal(2);
    await bench.source.stop();
  });
});

describe("serial source: writing", () => {
  const commands = { topic: "boiler/cmd", encode: ({ payload }: { payload: Uint8Array }) => payload, expiryMs: 60_000 };

  it("keeps memory bounded when the device does not read, and counts each acknowledgement dropped", async () => {
    const bench = await started({ ack: ackOf, maxAckBytes: 60 });
    const port = bench.port();
    port.instant = false;
    for (let n = 0; n < 100; n += 1) {
      port.send(`${n}\n`);
      bench.taken[n]?.settle(durable("x"));
    }
    // One is with the port, ten of 6 bytes wait.
    expect(port.written).to.equal("ack x\n");
    expect(bench.dropped()).to.deep.equal({ ackOverflow: 89 });
    port.instant = true;
    port.writes[0]?.done();
    expect(port.writes.map(({ text }) => text.length)).to.deep.equal([6, 60]);
    await bench.source.stop();
  });

  it("writes a command framed, with acknowledgements turn about", async () => {
    const bench = await started({ ack: ackOf, commands });
    const port = bench.port();
    port.instant = false;
    port.send("a\nb\nc\n");
    for (const { text, settle } of bench.taken) settle(durable(text));
    bench.command("on");
    bench.command("off");
    for (let n = 0; n < 4; n += 1) port.writes[n]?.done();
    expect(port.writes.map(({ text }) => text)).to.deep.equal(["ack a\n", "on\n", "ack b\nack c\n", "off\n"]);
    expect(bench.meter.expose()).to.contain('tidegate_source_commands_total{source="boiler"} 2');
    await bench.source.stop();
  });

  it("keeps a command while the device is away and sends it when that is back in time", async () => {
    const bench = await started({ commands });
    bench.port().events.gone("unplugged");
    bench.command("on");
    bench.clock.advance(5000);
    await bench.flush();
    expect(bench.ports[0]?.written).to.equal("");
    expect(bench.ports[1]?.written).to.equal("on\n");
    expect(bench.dropped()).to.deep.equal({});
    await bench.source.stop();
  });

  it("never sends a command that expired while the device was away, and counts it when it expires", async () => {
    const bench = await started({ commands: { ...commands, expiryMs: 3000 }, reopen: { minMs: 9000, maxMs: 9000 } });
    bench.port().events.gone("unplugged");
    bench.command("stale");
    bench.clock.advance(2000);
    bench.command("staler", { messageExpirySeconds: 0.5 });
    bench.clock.advance(900);
    expect(bench.dropped()).to.deep.equal({ commandExpired: 1 });
    bench.clock.advance(200);
    expect(bench.dropped()).to.deep.equal({ commandExpired: 2 });
    bench.clock.advance(3000);
    bench.command("fresh", { messageExpirySeconds: 3600 });
    bench.clock.advance(2900);
    await bench.flush();
    expect(bench.ports).to.have.length(2);
    expect(bench.port().written).to.equal("fresh\n");
    expect(bench.dropped()).to.deep.equal({ commandExpired: 2 });
    await bench.source.stop();
  });

  it("does not send an expired command either when the timer comes late", async () => {
    const bench = await started({ commands: { ...commands, expiryMs: 3000 } });
    const port = bench.port();
    port.instant = false;
    bench.command("first");
    bench.command("second");
    bench.clock.stall(3500);
    port.writes[0]?.done();
    expect(port.written).to.equal("first\n");
    expect(bench.dropped()).to.deep.equal({ commandExpired: 1 });
    await bench.source.stop();
  });

  it("takes no notice of what becomes of a lost port's write", async () => {
    const bench = await started({ commands });
    for (const error of [undefined, new Error("Canceled")]) {
      const port = bench.port();
      port.instant = false;
      bench.command("old");
      await replug(bench);
      bench.port().instant = false;
      bench.command("new 1");
      bench.command("new 2");
      port.writes[0]?.done(error);
      expect(bench.port().written).to.equal("new 1\n");
      expect(bench.source.state().link).to.equal("up");
      bench.port().writes[0]?.done();
      bench.port().writes[1]?.done();
      expect(bench.port().written).to.equal("new 1\nnew 2\n");
    }
    await bench.source.stop();
  });

  it("keeps at most maxQueued commands", async () => {
    const bench = await started({ commands: { ...commands, maxQueued: 2 } });
    bench.port().events.gone("unplugged");
    for (const text of ["1", "2", "3", "4"]) bench.command(text);
    expect(bench.dropped()).to.deep.equal({ commandQueueFull: 2 });
    bench.clock.advance(5000);
    await bench.flush();
    expect(bench.port().written).to.equal("1\n2\n");
    await bench.source.stop();
  });

  it("counts a command that cannot be encoded or framed", async () => {
    const encode = ({ payload }: { payload: Uint8Array }): Uint8Array => {
      if (payload.length === 0) throw new TidegateError("TG_DECODE", "setpoint is missing");
      return payload;
    };
    const bench = await started({ commands: { ...commands, encode } });
    bench.command("");
    bench.command("on\nreset");
    bench.command("x".repeat(5000));
    expect(bench.port().written).to.equal("");
    expect(bench.dropped()).to.deep.equal({ commandEncode: 3 });
    await bench.source.stop();
  });

  it("gives up a port that refuses a write: nothing in flight is sent again", async () => {
    const bench = await started({ ack: ackOf, commands });
    const port = bench.port();
    port.instant = false;
    bench.command("in flight");
    bench.command("waiting");
    port.send("a\n");
    bench.taken[0]?.settle(durable("a"));
    port.writes[0]?.done(new Error("EIO: i/o error, write"));
    port.events.gone("the port was closed"); // serialport tells of it twice
    expect(port.closed).to.equal("discarded output");
    expect(bench.dropped()).to.deep.equal({ ackPortGone: 1, commandPortGone: 1 });
    expect(bench.source.state()).to.include({ link: "down" });
    expect(bench.source.state().problem).to.contain("EIO");
    bench.clock.advance(5000);
    await bench.flush();
    expect(bench.ports).to.have.length(2);
    expect(bench.port().written).to.equal("waiting\n");
    port.writes[0]?.done();
    expect(port.writes).to.have.length(1);
    await bench.source.stop();
  });

  it("closes a port that keeps a command past its expiry, and throws its output away", async () => {
    const bench = await started({ commands: { ...commands, expiryMs: 3000 } });
    const port = bench.port();
    port.instant = false;
    bench.command("stuck");
    bench.clock.advance(2900);
    expect(port.closed).to.equal("no");
    bench.clock.advance(200);
    expect(port.closed).to.equal("discarded output");
    expect(bench.dropped()).to.deep.equal({ commandExpired: 1 });
    expect(bench.source.state().problem).to.contain("does not read");
    await bench.source.stop();
  });

  it("closes a port that does not get rid of an acknowledgement, though not one that is only slow", async () => {
    const bench = await started({ ack: ackOf });
    const port = bench.port();
    port.instant = false;
    for (let n = 0; n < 5; n += 1) {
      port.send("a\n");
      bench.taken[n]?.settle(durable(n));
      bench.clock.advance(8000);
      port.writes[n]?.done();
    }
    expect(port.closed).to.equal("no");
    port.send("b\nc\n");
    for (const { settle } of bench.taken.slice(5)) settle(durable(0));
    bench.clock.advance(9900);
    expect(port.closed).to.equal("no");
    bench.clock.advance(200);
    expect(port.closed).to.equal("discarded output");
    expect(bench.dropped()).to.deep.equal({ ackPortGone: 2 });
    expect(bench.source.state().problem).to.contain("does not read");
    await bench.source.stop();
  });
});

describe("serial source: the port", () => {
  it("is connecting, up, down and stopped in turn", async () => {
    const bench = makeBench();
    expect(bench.source.state()).to.deep.equal({
      name: "boiler",
      type: "serial",
      link: "idle",
      problem: undefined,
      accepted: 0,
      dropped: {},
    });
    const begun = bench.source.start();
    expect(bench.source.state().link).to.equal("connecting");
    await begun;
    await bench.flush();
    expect(bench.source.state().link).to.equal("up");
    bench.port().events.gone("unplugged");
    expect(bench.source.state().link).to.equal("down");
    expect(bench.meter.expose()).to.contain('tidegate_source_up{source="boiler"} 0');
    expect(bench.port().closed).to.equal("kept output");
    bench.clock.advance(5000);
    expect(bench.source.state().link).to.equal("down");
    await bench.flush();
    expect(bench.source.state()).to.include({ link: "up", problem: undefined });
    await bench.source.stop();
    expect(bench.source.state().link).to.equal("stopped");
    expect(bench.meter.expose()).not.to.contain("tidegate_source_up{");
  });

  it("tries again for ever, and logs a problem only when it changes", async () => {
    const bench = makeBench();
    const away = new Error("no such device /dev/ttyFake");
    bench.openErrors.push(...new Array<Error>(20).fill(away), new Error("another program holds /dev/ttyFake"));
    await bench.source.start();
    for (let n = 0; n < 21; n += 1) {
      await bench.flush();
      expect(bench.source.state().link).to.equal("down");
      bench.clock.advance(5000);
    }
    await bench.flush();
    expect(bench.source.state()).to.include({ link: "up", problem: undefined });
    expect(bench.lines.map(({ level, fields }) => `${level} ${String(fields["problem"] ?? "")}`)).to.deep.equal([
      "warn no such device /dev/ttyFake",
      "warn another program holds /dev/ttyFake",
      "info ",
    ]);
    await bench.source.stop();
  });

  it("backs off while the port opens but never proves itself, and starts over once it did", async () => {
    const bench = makeBench({ reopen: { minMs: 100, maxMs: 100_000 } });
    await bench.source.start();
    const random = Math.random;
    Math.random = () => 1; // the longest wait each time
    try {
      for (let n = 0; n < 8; n += 1) {
        await bench.flush();
        bench.port().events.gone("unplugged");
        bench.clock.advance(100 * 2 ** n);
      }
      await bench.flush();
      expect(bench.ports).to.have.length(9);
      bench.port().send("proof\n");
      bench.port().events.gone("unplugged");
      bench.clock.advance(100);
      await bench.flush();
      expect(bench.ports).to.have.length(10);
    } finally {
      Math.random = random;
    }
    await bench.source.stop();
  });

  it("survives a port that is lost before it is known to be open", async () => {
    const bench = makeBench();
    const begun = bench.source.start();
    bench.port().events.gone("unplugged");
    await begun;
    await bench.flush();
    expect(bench.ports[0]?.closed).to.equal("discarded output");
    expect(bench.source.state().link).to.equal("down");
    bench.clock.advance(5000);
    await bench.flush();
    expect(bench.source.state().link).to.equal("up");
    await bench.source.stop();
  });

  it("stops for good: closes the port, unsubscribes, settles nothing later, leaves no timer", async () => {
    const bench = await started({
      ack: ackOf,
      commands: { topic: "boiler/cmd", encode: ({ payload }) => payload, expiryMs: 60_000 },
    });
    const handler = bench.subscriptions.get("boiler/cmd");
    expect(handler).to.not.equal(undefined);
    const port = bench.port();
    port.instant = false;
    bench.command("in flight");
    bench.command("waiting");
    port.send("a\n");
    await Promise.all([bench.source.stop(), bench.source.stop()]);
    expect(port.closed).to.equal("discarded output");
    expect(bench.subscriptions.size).to.equal(0);
    bench.taken[0]?.settle(durable("a"));
    port.writes[0]?.done();
    port.send("b\n");
    port.events.gone("unplugged");
    handler?.({ topic: "boiler/cmd", payload: Buffer.from("x"), qos: 0, retain: false, source: "sys" });
    expect(port.writes).to.have.length(1);
    expect(bench.taken).to.have.length(1);
    expect(bench.source.state()).to.include({ link: "stopped", accepted: 0 });
    expect(bench.dropped()).to.deep.equal({ commandPortGone: 1, commandStopped: 1 });
    expect(bench.clock.timers).to.equal(0);
    await bench.source.start();
    await bench.flush();
    expect(bench.ports).to.have.length(1);
  });

  it("closes a port that finishes opening after stop", async () => {
    const bench = makeBench();
    const begun = bench.source.start();
    await Promise.all([begun, bench.source.stop()]);
    expect(bench.ports[0]?.closed).to.equal("discarded output");
    expect(bench.source.state().link).to.equal("stopped");
  });

  it("refuses a usb: path and framing that cannot work when it is made", () => {
    expect(() => makeBench({ path: "usb:403:6001" })).to.throw(TidegateError, "usb:VID:PID");
    expect(() => makeBench({ framing: { type: "lines", crc: "crc8" } })).to.throw(TidegateError, "crc8");
  });
});
