import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { SerialPort } from "serialport";
import { decodeReading, encodeDownlink, FrameReader, frameOf } from "../../../firmware-sim/codec/boiler.ts";
import { openPtyLink, ptyProblem, type SerialLink, type SerialLinkEvents } from "../../../firmware-sim/ptyLink.ts";
import { SerialDevice, type SerialDeviceOptions } from "../../../firmware-sim/serialDevice.ts";
import { eventually, FakeClock } from "./fakeClock.ts";

/** Links that go nowhere; the test holds the other end. */
class FakeLinks {
  readonly written: Buffer[] = [];
  opened = 0;
  events: SerialLinkEvents | undefined;
  readonly open = async (events: SerialLinkEvents): Promise<SerialLink> => {
    this.opened += 1;
    this.events = events;
    return {
      path: `/dev/nowhere/${this.opened}`,
      write: (bytes) => {
        this.written.push(bytes);
        return bytes.length;
      },
      close: async () => {},
    };
  };
}

describe("firmware-sim: serial device", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  describe("on a wire that the test holds", () => {
    async function bench(options: Partial<SerialDeviceOptions> = {}) {
      const links = new FakeLinks();
      const clock = new FakeClock();
      const device = new SerialDevice({ dir, periodMs: 100, ...options, clock, openLink: links.open });
      await device.start();
      return { links, clock, device };
    }
    /** Lets promises that wait for nothing but each other run. */
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

    it("keeps its path while the port behind it changes", async () => {
      const { device } = await bench();
      expect(readlinkSync(device.path)).to.equal("/dev/nowhere/1");
      await device.unplug();
      expect(existsSync(device.path)).to.equal(false);
      await Promise.all([device.replug(), device.replug()]);
      expect(readlinkSync(device.path)).to.equal("/dev/nowhere/2");
      expect(device.stats()).to.include({ plugged: true, unplugs: 1 });
      await device.stop();
    });

    it("unplugs and plugs in again by its schedule, and sends nothing meanwhile", async () => {
      const { device, links, clock } = await bench({ unplugEveryMs: 1000, unplugForMs: 300 });
      clock.advance(1000);
      await turn();
      expect(device.stats().plugged).to.equal(false);
      const before = links.written.length;
      clock.advance(290);
      expect(links.written).to.have.length(before);
      expect(device.stats().produced).to.be.greaterThan(11);
      clock.advance(20);
      await turn();
      expect(device.stats().plugged).to.equal(true);
      clock.advance(1000);
      await turn();
      expect(device.stats().unplugs).to.equal(2);
      await device.stop();
    });

    it("comes back when somebody else took the line away", async () => {
      const { device, links, clock } = await bench({ unplugForMs: 200 });
      links.events?.onLost();
      expect(device.stats()).to.include({ plugged: false, unplugs: 1 });
      clock.advance(200);
      await turn();
      expect(device.stats().plugged).to.equal(true);
      expect(links.opened).to.equal(2);
      await device.stop();
    });

    it("falls silent by its schedule, keeps its readings and hears ACKs", async () => {
      const { device, links, clock } = await bench({ silenceEveryMs: 1000, silenceForMs: 400 });
      clock.advance(1000);
      const before = links.written.length;
      clock.advance(390);
      expect(links.written).to.have.length(before);
      links.events?.onData(frameOf(encodeDownlink({ kind: "ack", seq: 0 })));
      expect(device.accepted.map((reading) => reading.number)).to.deep.equal([0]);
      clock.advance(600);
      expect(links.written.length).to.be.greaterThan(before);
      await device.stop();
    });

    it("spoils frames as its knobs say, and only those", async () => {
      const { device, links, clock } = await bench({ noise: 0.2, tornFrames: 0.2, corrupt: 0.2, periodMs: 10 });
      clock.advance(2000);
      const { noisyFrames, tornFrames, flippedFrames, produced, resent } = device.stats();
      for (const count of [noisyFrames, tornFrames, flippedFrames]) {
        expect(count).to.be.within((produced + resent) * 0.12, (produced + resent) * 0.28);
      }
      const reader = new FrameReader();
      let good = 0;
      for (const chunk of links.written) reader.push(chunk, () => (good += 1));
      // A flipped or torn delimiter may cost a neighbour nothing: each frame has one of its own at both ends.
      expect(good).to.be.at.least(produced + resent - tornFrames - flippedFrames);
      expect(good).to.be.below(produced + resent);
      await device.stop();
    });

    it("when told to stop producing, plugs itself in and still resends", async () => {
      const { device, links, clock } = await bench({ unplugEveryMs: 500, unplugForMs: 100_000 });
      clock.advance(600);
      await turn();
      expect(device.stats().plugged).to.equal(false);
      await device.stopProducing();
      const { produced } = device.stats();
      const before = links.written.length;
      clock.advance(700);
      expect(device.stats()).to.include({ plugged: true, produced });
      expect(links.written.length - before).to.be.at.least(produced);
      await device.stop();
    });
  });

  describe("on a pseudo-terminal", () => {
    before(async function () {
      const problem = await ptyProblem();
      if (problem === undefined) return;
      process.stderr.write(`      skipped on this platform: ${problem}\n`);
      this.skip();
    });

    /** Opens the port as a gateway would and acknowledges every good frame. */
    function acknowledger(path: string): { port: SerialPort; seen: number[] } {
      const port = new SerialPort({ path, baudRate: 115_200 });
      const reader = new FrameReader();
      const seen: number[] = [];
      port.on("error", () => {});
      port.on("data", (chunk: Buffer) => {
        reader.push(chunk, (payload) => {
          const reading = decodeReading(payload);
          if (reading === undefined || !port.isOpen) return;
          seen.push(reading.seq);
          port.write(frameOf(encodeDownlink({ kind: "ack", seq: reading.seq })));
        });
      });
      return { port, seen };
    }

    it("has every reading acknowledged over a bad cable and an unplug, in spite of both", async () => {
      const faults = { noise: 0.2, tornFrames: 0.1, corrupt: 0.1 };
      const device = new SerialDevice({ dir, periodMs: 10, resendMs: 100, ...faults });
      try {
        await device.start();
        const first = acknowledger(device.path);
        await eventually("40 ACKs", () => device.stats().accepted >= 40);
        const closed = new Promise((resolve) => first.port.once("close", resolve));
        await device.unplug();
        await closed;
        await device.replug();
        acknowledger(device.path);
        await eventually("80 ACKs", () => device.stats().accepted >= 80);
        await device.stopProducing();
        await eventually("all ACKs", () => device.stats().unacknowledged === 0);
        const numbers = device.accepted.map((reading) => reading.number).sort((a, b) => a - b);
        expect(numbers).to.deep.equal(Array.from({ length: device.stats().produced }, (_, at) => at));
      } finally {
        await device.stop();
      }
      expect(existsSync(device.path)).to.equal(false);
    });

    it("carries all byte values both ways, from the first one on", async () => {
      const received: Buffer[] = [];
      const link = await openPtyLink({ onData: (chunk) => received.push(chunk), onLost: () => {} });
      const every = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
      const port = new SerialPort({ path: link.path, baudRate: 115_200 });
      const read: Buffer[] = [];
      port.on("data", (chunk: Buffer) => read.push(chunk));
      port.on("error", () => {});
      try {
        await new Promise((resolve) => port.once("open", resolve));
        port.write(every);
        expect(link.write(every)).to.equal(256);
        await eventually(
          "256 bytes each way",
          () => Buffer.concat(received).length >= 256 && Buffer.concat(read).length >= 256,
        );
        expect(Buffer.concat(received).equals(every)).to.equal(true);
        expect(Buffer.concat(read).equals(every)).to.equal(true);
      } finally {
        await link.close();
      }
    });

    it("loses bytes when nobody reads, instead of waiting or hoarding", async () => {
      const link = await openPtyLink({ onData: () => {}, onLost: () => {} });
      try {
        const startedMs = performance.now();
        let taken = 0;
        for (let at = 0; at < 200; at += 1) taken += link.write(Buffer.alloc(1000, 0x55));
        expect(taken).to.be.below(200_000);
        expect(performance.now() - startedMs).to.be.below(2000);
      } finally {
        await link.close();
      }
      expect(link.write(Buffer.from("x"))).to.equal(0);
    });

    it("notices when its shell is killed by somebody else, and so does who reads", async () => {
      let lost = 0;
      const link = await openPtyLink({ onData: () => {}, onLost: () => (lost += 1) });
      const port = new SerialPort({ path: link.path, baudRate: 115_200 });
      port.on("error", () => {});
      port.resume();
      const gone = new Promise((resolve) => port.once("close", resolve));
      await new Promise((resolve) => port.once("open", resolve));
      process.kill(shellOn(link.path), "SIGKILL");
      await gone;
      await eventually("the loss", () => lost === 1);
      await link.close();
      expect(lost).to.equal(1);
    });
  });
});

/** The process whose standard input is this terminal. */
function shellOn(path: string): number {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readlinkSync(`/proc/${pid}/fd/0`) === path && Number(pid) !== process.pid) return Number(pid);
    } catch {
      // ended, or not ours to look at
    }
  }
  throw new Error(`no process on ${path}`);
}
