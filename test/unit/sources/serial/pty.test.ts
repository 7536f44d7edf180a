import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { systemClock } from "../../../../src/base/clock.ts";
import type { Source } from "../../../../src/base/contracts.ts";
import { silentLog } from "../../../../src/base/log.ts";
import type { Message } from "../../../../src/base/message.ts";
import { Meter } from "../../../../src/base/meter.ts";
import type { SerialSourceOptions } from "../../../../src/sources/serial/options.ts";
import { openSerialPort } from "../../../../src/sources/serial/port.ts";
import { createSerialSource } from "../../../../src/sources/serial/source.ts";
import { createFramer, type FramingOptions } from "../../../../src/wire/frame/framer.ts";
import { comesMsMax } from "../../../helpers/wait.ts";
import { loadPty, type PtyDevice } from "./pty.ts";

const framing: FramingOptions = { type: "cobs", crc: "crc16-ccitt" };
const wire = (text: string): string =>
  Buffer.from(createFramer(framing).encode(Buffer.from(text, "latin1"))).toString("latin1");

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + comesMsMax;
  while (!condition()) {
    if (performance.now() > deadlineMs) throw new Error(`waited in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe("serial source on a pseudo-terminal", () => {
  const plugIn = loadPty();
  let folder: string;
  let port: string;
  let command: (text: string) => void;
  const sources: Source[] = [];
  const devices: PtyDevice[] = [];

  before(function () {
    if (plugIn !== undefined) return;
    process.stderr.write(
      "serial source on a pseudo-terminal: skipped on this platform, @lydell/node-pty has no binary\n",
    );
    this.skip();
  });
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    port = join(folder, "ttyBoiler");
  });
  afterEach(async () => {
    await Promise.all(sources.splice(0).map((source) => source.stop()));
    await Promise.all(devices.splice(0).map((device) => device.unplug()));
    rmSync(folder, { recursive: true, force: true });
  });

  /** A device, found under the path that the config names, as udev's by-id links are. */
  async function plug(): Promise<PtyDevice> {
    const device = await plugIn!();
    devices.push(device);
    rmSync(port, { force: true });
    symlinkSync(device.path, port);
    return device;
  }

  async function start(taken: string[], options: Partial<SerialSourceOptions> = {}): Promise<Source> {
    const source = createSerialSource(
      {
        name: "boiler",
        path: port,
        baudRate: 115_200,
        framing,
        ack: { encode: (value) => Buffer.from(`ok ${String(value)}`, "latin1") },
        commands: { topic: "cmd", encode: ({ payload }) => payload, expiryMs: 60_000 },
        reopen: { minMs: 20, maxMs: 40 },
        ...options,
      },
      {
        intake: {
          take({ payload }, settled) {
            const value = Buffer.from(payload).toString("latin1");
            taken.push(value);
            setImmediate(() => settled({ kind: "durable", value }));
          },
        },
        publisher: {
          publish: () => ({ accepted: true, group: 0 }),
          whenDurable: (_group, settled) => settled(true),
          subscribe(_filter, handler) {
            command = (text) => {
              const payload = Buffer.from(text);
              handler({ topic: "cmd", payload, qos: 1, retain: false, source: "sys" } satisfies Message);
            };
            return () => {};
          },
        },
        log: silentLog,
        clock: systemClock,
        meter: new Meter(),
      },
    );
    sources.push(source);
    await source.start();
    return source;
  }

  const isUp = (source: Source) => (): boolean => source.state().link === "up";

  it("takes readings of all byte values, acknowledges them, and writes commands", async () => {
    const device = await plug();
    const taken: string[] = [];
    const source = await start(taken);
    await until("the port is open", isUp(source));
    const all = Buffer.from(Uint8Array.from({ length: 256 }, (_, at) => at)).toString("latin1");
    device.send(wire(all));
    await until("the acknowledgement is there", () => device.received() === wire(`ok ${all}`));
    expect(taken).to.deep.equal([all]);
    command("setpoint 40");
    await until("the command is there", () => device.received().endsWith(wire("setpoint 40")));
    expect(source.state()).to.deep.include({ accepted: 1, dropped: {} });
  });

  it("finds every good frame in a noisy stream, in order", async () => {
    const device = await plug();
    const taken: string[] = [];
    const source = await start(taken, { framing: { ...framing, maxFrameBytes: 64 } });
    await until("the port is open", isUp(source));
    const sent: string[] = [];
    for (let n = 0; n < 300; n += 1) {
      const reading = `reading ${n}`;
      sent.push(reading);
      // A cut frame, a changed one, or up to 200 bytes of noise, each with the delimiter that starts the device's next frame.
      if (n % 3 === 0) device.send(`${wire(reading).slice(0, 5)}\u0000`);
      if (n % 3 === 1) device.send(wire(reading).replace("read", "rexd"));
      if (n % 3 === 2) device.send(`${randomBytes(n % 200).toString("latin1")}\u0000`);
      const frame = wire(reading);
      device.send(frame.slice(0, n % frame.length));
      device.send(frame.slice(n % frame.length));
    }
    await until("the last reading is there", () => taken.at(-1) === "reading 299");
    // Noise that looks like a frame with the right checksum: once in 65536 pieces. It may be there, the readings must be.
    expect(taken.filter((text) => text.startsWith("reading "))).to.deep.equal(sent);
    await until("all are acknowledged", () => source.state().accepted === taken.length);
    expect(source.state().dropped).to.include.keys("badCrc", "malformed");
  });

  it("comes back after an unplug; what was meant for the device before is not sent to the next", async () => {
    const first = await plug();
    const taken: string[] = [];
    const source = await start(taken, {
      commands: { topic: "cmd", encode: ({ payload }) => payload, expiryMs: 150 },
    });
    for (let round = 0; round < 3; round += 1) {
      const device = devices.at(-1)!;
      await until("the port is open", isUp(source));
      device.send(wire(`reading ${round}`));
      await until("it is acknowledged", () => device.received().includes(wire(`ok reading ${round}`)));
      await device.unplug();
      await until("the unplug is seen", () => source.state().link === "down");
      rmSync(port, { force: true });
      command(`stale ${round}`);
      await until("the command expires", () => source.state().dropped["commandExpired"] === round + 1);
      await until("the device is missed", () => source.state().problem?.startsWith("no such device") ?? false);
      expect(source.state().problem).to.contain("sources.boiler.path");
      await plug();
    }
    const last = devices.at(-1)!;
    await until("the port is open", isUp(source));
    command("fresh");
    await until("the command is there", () => last.received() === wire("fresh"));
    expect(first.received()).to.equal(wire("ok reading 0"));
    expect(taken).to.deep.equal(["reading 0", "reading 1", "reading 2"]);
  });

  it("sends a command that waits while the device is away", async () => {
    const taken: string[] = [];
    const source = await start(taken);
    await until("the device is missed", () => source.state().link === "down");
    command("on");
    const device = await plug();
    await until("the command is there", () => device.received() === wire("on"));
  });

  it("lets go of a device that does not read: its commands expire, the port opens anew", async () => {
    const device = await plug();
    device.block();
    const source = await start([], {
      commands: { topic: "cmd", encode: ({ payload }) => payload, expiryMs: 200, maxQueued: 200 },
      reopen: { minMs: 100, maxMs: 100 },
    });
    await until("the port is open", isUp(source));
    const big = "x".repeat(4000);
    for (let n = 0; n < 100; n += 1) command(big);
    await until("it is given up", () => source.state().problem?.includes("does not read") ?? false);
    await until("the port opens anew", isUp(source));
    await until("all others expire", () => (source.state().dropped["commandExpired"] ?? 0) > 50);
    await device.unplug();
    const other = await plug();
    await until("the other device answers", () => {
      if (source.state().link === "up") command("hello");
      return other.received().includes(wire("hello"));
    });
  });

  it("says what is wrong with a port it cannot open", async () => {
    writeFileSync(port, "");
    const file = await start([]);
    await until("the file is tried", () => file.state().problem !== undefined);
    expect(file.state().problem).to.equal(`${port} is not a serial port`);

    await plug();
    await until("it opens now", isUp(file));
    const second = await start([]);
    await until("the second is locked out", () => second.state().problem !== undefined);
    expect(second.state().problem).to.equal(`another program holds ${port}`);
    await file.stop();
    await until("the second takes over", isUp(second));
  });

  it("refuses a write to a port that is closed, where serialport would keep it for the next device", async () => {
    const device = await plug();
    const settings = { source: "boiler", path: port, baudRate: 9600, dataBits: 8, stopBits: 1 } as const;
    const events = { data() {}, gone: () => expect.fail("closed by us is not lost") };
    const opened = await openSerialPort({ ...settings, parity: "none", rtscts: false }, events);
    await Promise.all([opened.close(false), opened.close(true)]);
    const error = await new Promise((resolve) => opened.write(Buffer.from("stale"), resolve));
    expect(error).to.be.instanceOf(Error);
    expect(device.received()).to.equal("");
  });

  it("opens with every setting that the config offers", async () => {
    await plug();
    for (const options of [
      { dataBits: 7, parity: "even", stopBits: 2, rtscts: true, baudRate: 9600 },
      { dataBits: 8, parity: "odd", stopBits: 1, baudRate: 250_000 },
      { dataBits: 5, parity: "none", baudRate: 1200 },
      { dataBits: 6, baudRate: 4_000_000 },
    ] satisfies Array<Partial<SerialSourceOptions>>) {
      const source = await start([], options);
      await until("it is tried", () => source.state().link !== "connecting");
      expect(source.state()).to.include({ link: "up", problem: undefined });
      await source.stop();
    }
  });
});
