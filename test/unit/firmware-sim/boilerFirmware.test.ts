import { expect } from "chai";
import { BoilerFirmware, type FirmwareOptions } from "../../../firmware-sim/boilerFirmware.ts";
import {
  type BoilerReading,
  decodeReading,
  encodeDownlink,
  FrameReader,
  frameOf,
} from "../../../firmware-sim/codec/boiler.ts";
import { FakeClock } from "./fakeClock.ts";

/** A device on a clock that stands still, and what it put on its wire. */
function bench(options: Partial<FirmwareOptions> = {}) {
  const clock = new FakeClock();
  const reader = new FrameReader();
  const sent: Array<BoilerReading & { atMs: number }> = [];
  const device = new BoilerFirmware({
    periodMs: 100,
    ...options,
    clock,
    send: (frame) =>
      reader.push(frame, (payload) => {
        const reading = decodeReading(payload);
        if (reading !== undefined) sent.push({ ...reading, atMs: clock.nowMs() });
      }),
  });
  const ack = (seq: number): void => device.receive(frameOf(encodeDownlink({ kind: "ack", seq })));
  return { clock, device, sent, ack };
}

describe("firmware-sim: boiler firmware", () => {
  it("makes a reading a period, with rising numbers", () => {
    const { clock, device, sent } = bench();
    device.start();
    clock.advance(450);
    expect(sent.map((reading) => reading.seq)).to.deep.equal([0, 1, 2, 3, 4]);
    expect(device.stats()).to.include({ produced: 5, resent: 0, unacknowledged: 5 });
  });

  it("sends a reading again every 500 ms until its ACK, and then never", () => {
    const { clock, device, sent, ack } = bench();
    device.start();
    clock.advance(20);
    device.stopProducing();
    clock.advance(1600);
    const times = sent.map((reading) => reading.atMs);
    expect(times).to.deep.equal([10, 510, 1010, 1510]);
    ack(0);
    clock.advance(5000);
    expect(sent).to.have.length(4);
    expect(device.accepted.map((reading) => reading.number)).to.deep.equal([0]);
  });

  it("resends the oldest first, and goes on making new ones meanwhile", () => {
    const { clock, device, sent } = bench({ periodMs: 20 });
    device.start();
    clock.advance(3000);
    const before = device.stats().produced;
    sent.length = 0;
    clock.advance(500);
    expect(device.stats().produced - before).to.equal(25);
    const again = sent.filter((reading) => reading.seq < before).map((reading) => reading.seq);
    expect(new Set(again).size, "each of those that wait, within one resend time").to.equal(before);
    const inOneTick = sent.filter((reading) => reading.atMs === sent[0]?.atMs && reading.seq < before);
    expect(inOneTick.map((r) => r.seq)).to.deep.equal(inOneTick.map((r) => r.seq).sort((a, b) => a - b));
  });

  it("makes no 257th unacknowledged reading, counts those held back, and loses none", () => {
    const { clock, device, sent, ack } = bench({ periodMs: 10 });
    device.start();
    clock.advance(5000);
    expect(device.stats()).to.include({ produced: 256, unacknowledged: 256, held: 501 - 256 });
    const seen = new Set(sent.map((reading) => reading.seq));
    expect(seen.size).to.equal(256);
    ack(7);
    clock.advance(10);
    expect(device.stats()).to.include({ produced: 257, unacknowledged: 256 });
    for (let seq = 0; seq <= 256; seq += 1) ack(seq);
    expect(device.stats()).to.include({ accepted: 257, unacknowledged: 0, strayAcks: 1 });
  });

  it("lets seq wrap and its own numbers not", () => {
    const { clock, device, sent, ack } = bench({ firstNumber: 65_534 });
    device.start();
    clock.advance(310);
    expect(sent.map((reading) => reading.seq)).to.deep.equal([65_534, 65_535, 0, 1]);
    for (const seq of [0, 65_535, 1, 65_534]) ack(seq);
    expect(device.accepted.map((reading) => reading.number)).to.deep.equal([65_536, 65_535, 65_537, 65_534]);
  });

  it("remembers a bounded list of what was accepted, and counts the rest", () => {
    const { clock, device, ack } = bench({ acceptedMax: 3 });
    device.start();
    clock.advance(1000);
    for (let seq = 0; seq < 8; seq += 1) ack(seq);
    expect(device.accepted).to.have.length(3);
    expect(device.stats().accepted).to.equal(8);
  });

  it("obeys a setpoint: the temperature goes there", () => {
    const { clock, device, sent } = bench({ periodMs: 20, unacknowledgedMax: 10_000 });
    device.start();
    device.receive(frameOf(encodeDownlink({ kind: "command", setpoint: -500 })));
    clock.advance(4000);
    const newest = sent.reduce((latest, reading) => (reading.seq > latest.seq ? reading : latest));
    expect(newest.temperature).to.be.within(-560, -440);
    expect(device.stats()).to.include({ commands: 1, setpoint: -5 });
  });

  it("counts frames it does not understand, and lives on", () => {
    const { clock, device, ack } = bench();
    device.start();
    clock.advance(20);
    device.receive(frameOf(Buffer.from([99, 1, 2])));
    const torn = frameOf(encodeDownlink({ kind: "ack", seq: 0 })).subarray(0, 4);
    device.receive(torn);
    ack(0);
    expect(device.stats()).to.include({ badFrames: 2, accepted: 1 });
  });

  it("is the same device with the same seed, and another with another", () => {
    const run = (seed: number): BoilerReading[] => {
      const { clock, device, sent } = bench({ seed });
      device.start();
      clock.advance(1000);
      return sent;
    };
    expect(run(5)).to.deep.equal(run(5));
    expect(run(5)).not.to.deep.equal(run(6));
  });

  it("does nothing after stop", () => {
    const { clock, device, sent } = bench();
    device.start();
    clock.advance(100);
    device.stop();
    const before = sent.length;
    clock.advance(5000);
    expect(sent).to.have.length(before);
  });
});
