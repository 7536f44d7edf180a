import { expect } from "chai";
import { KeptCommands } from "../../../../src/sources/serial/keptCommands.ts";
import { FaultyFiles } from "../../../helpers/faultyFiles.ts";
import { open, TestClock, until } from "../../journal/support.ts";
import { type Bench, makeBench } from "./fakes.ts";

const commands = { topic: "boiler/cmd", encode: ({ payload }: { payload: Uint8Array }) => payload, expiryMs: 60_000 };

/** A source whose device is away, on a store that outlives it. */
class Away {
  readonly files = new FaultyFiles();
  readonly clock = new TestClock();
  store!: Awaited<ReturnType<typeof open>>;
  bench!: Bench;

  async start(name = "boiler", maxQueued = 64): Promise<void> {
    this.clock.forgetTimers();
    this.store = await open(this.files.mount(), this.clock);
    const options = { name, commands: { ...commands, maxQueued }, reopen: { minMs: 1000, maxMs: 1000 } };
    this.bench = makeBench(options, this.store);
    this.bench.clock.wallMs = () => this.clock.wallMs();
    this.bench.openErrors.push(new Error("away"));
    await this.bench.source.start();
    await this.bench.flush();
  }

  async command(text: string, seconds?: number): Promise<void> {
    const group = this.bench.command(text, seconds === undefined ? undefined : { messageExpirySeconds: seconds });
    expect(group).to.be.above(0);
    await until(() => this.store.durableGroup >= group);
  }

  /** The device is there again. */
  async plug(): Promise<string> {
    this.bench.clock.advance(1000);
    await this.bench.flush();
    return this.bench.port().written;
  }

  get kept(): number {
    return [...this.store.entries("serial-commands")].length;
  }
}

describe("serial source: commands outlive the gateway", () => {
  for (const how of ["stop", "kill", "power cut"] as const)
    it(`what was taken while the device was away goes after a ${how}, in order, once, and what expired does not`, async () => {
      const away = new Away();
      await away.start();
      for (let n = 1; n <= 12; n += 1) await away.command(`on ${n}`);
      await away.command("stale", 5);
      expect(away.kept).to.equal(13);
      if (how === "stop") {
        await away.bench.source.stop();
        expect(away.bench.dropped()).to.deep.equal({});
        await away.store.close();
      } else if (how === "power cut") away.files.crash(() => 0.9);
      away.clock.advance(10_000); // the wall clock goes on while it is off, and the store clock believes it
      await away.start();
      expect(away.bench.dropped()).to.deep.equal({ commandExpired: 1 });
      const written = Array.from({ length: 12 }, (_, at) => `on ${at + 1}\n`).join("");
      expect(await away.plug()).to.equal(written);
      expect(away.kept).to.equal(0);
      await away.bench.source.stop();
      await away.store.close();
      await away.start();
      expect(await away.plug()).to.equal(""); // and never again: that it went is durable as well
      await away.store.close();
    });

  it("an outage of days, which the store clock does not believe, makes a command stale all the same", async () => {
    const away = new Away();
    await away.start();
    await away.command("open the door");
    await away.store.close();
    away.clock.wall += 3 * 86_400_000;
    await away.start();
    expect(await away.plug()).to.equal("");
    expect(away.bench.dropped()).to.deep.equal({ commandExpired: 1 });
    await away.store.close();
  });

  it("what expires while it runs is gone from the store too; what does not fit is not kept", async () => {
    const away = new Away();
    await away.start("boiler", 2);
    await away.command("one", 3);
    await away.command("two", 30);
    expect(away.bench.command("three")).to.equal(0);
    expect(away.bench.dropped()).to.deep.equal({ commandQueueFull: 1 });
    expect(away.kept).to.equal(2);
    away.bench.openErrors.push(...Array.from({ length: 20 }, () => new Error("away")));
    away.bench.clock.advance(3100);
    expect(away.bench.dropped()).to.deep.equal({ commandQueueFull: 1, commandExpired: 1 });
    expect(away.kept).to.equal(1);
    await away.store.close();
  });

  it("what can go to the port at once is not written to the disk", async () => {
    const away = new Away();
    await away.start();
    await away.plug();
    expect(away.bench.command("now")).to.equal(0);
    expect(away.bench.port().written).to.equal("now\n");
    expect(away.kept).to.equal(0);
    await away.store.close();
  });

  it("sources do not get each other's, and what a source that is gone has left goes when it expired", async () => {
    const away = new Away();
    await away.start("boiler");
    await away.command("for the boiler", 20);
    await away.store.close();
    await away.start("boiler2");
    expect(await away.plug()).to.equal("");
    expect(away.kept).to.equal(1);
    await away.store.close();
    away.clock.advance(30_000);
    await away.start("boiler2");
    expect(away.kept).to.equal(0);
    expect(away.bench.dropped()).to.deep.equal({});
    await away.store.close();
  });

  it("a store that has no room, fails, or holds nonsense stops no command", () => {
    const taken: unknown[] = [];
    const rotten = new Map([
      ["boiler\u0000x", new Uint8Array(3)],
      ["boiler\u00001", new Uint8Array(20).fill(0xff)],
    ]);
    const failing = {
      admit: () => "ok" as const,
      commit: () => {
        throw new Error("the disk");
      },
      entries: () => rotten,
      nowMs: () => 5,
    };
    const kept = new KeptCommands(failing, () => 5, "boiler");
    expect(kept.load((...args) => taken.push(args))).to.equal(2);
    expect(taken).to.deep.equal([]);
    expect(kept.keep(new Uint8Array(1), 100)).to.equal(undefined);
    const full = new KeptCommands({ ...failing, admit: () => "full" }, () => 5, "boiler");
    expect(full.keep(new Uint8Array(1), 100)).to.equal(undefined);
  });
});
