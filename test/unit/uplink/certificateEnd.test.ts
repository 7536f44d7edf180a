import { expect } from "chai";
import { FreshCredentials } from "../../../src/uplink/freshCredentials.ts";
import type { Credentials, TlsOptions } from "../../../src/uplink/options.ts";
import { MovedClock, recordingLog } from "../../helpers/memoryUplink.ts";
import { TestCa } from "../../helpers/testCa.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches, uplinkOptions } from "./bench.ts";

const dayMs = 86_400_000;

describe("uplink: our certificate ends", () => {
  let ca: TestCa | undefined;
  before(() => {
    ca = TestCa.make();
  });
  after(() => ca?.remove());
  afterEach(closeBenches);

  /** Valid since a day before the clock's now. */
  function issue(authority: TestCa, clock: MovedClock, days: number): TlsOptions {
    const at = (day: number): Date => new Date(clock.wallMs() + day * dayMs);
    const { cert, key } = authority.issueBetween("/CN=g1", at(-1), at(days));
    return { ca: undefined, cert, key };
  }

  it("which is said a month before, and when it has, once each", async function () {
    if (ca === undefined) return this.skip();
    const clock = new MovedClock();
    const lines: Parameters<typeof recordingLog>[0] = [];
    const tls = issue(ca, clock, 100);
    let reads = 0;
    const reread = (): Promise<Credentials> => {
      reads += 1;
      return Promise.resolve({ password: undefined, tls });
    };
    const fresh = new FreshCredentials(uplinkOptions({ tls, reread }), clock, recordingLog(lines));
    const pass = async (days: number): Promise<void> => {
      for (let n = 0; n < days; n += 1) {
        clock.advance(dayMs);
        fresh.look();
        fresh.look();
        await new Promise(setImmediate); // it was read, and is said
      }
    };
    await pass(69);
    expect(reads).to.equal(0);
    await pass(20);
    expect(reads).to.equal(19); // once a day here, as it looks no more often
    expect(lines.map(({ message }) => message)).to.deep.equal([
      `tls.cert expires in 29 days (${new Date(fresh.endMs).toISOString()})`,
    ]);
    await pass(13);
    expect(lines.map(({ level }) => level)).to.deep.equal(["warn", "warn"]);
    expect(lines[1]?.message).to.match(/^tls\.cert has expired/);
  });

  it("and not when its file has been renewed, though the link stayed up; one of few days is renewed late", async function () {
    if (ca === undefined) return this.skip();
    const clock = new MovedClock();
    const lines: Parameters<typeof recordingLog>[0] = [];
    const [old, renewed] = [issue(ca, clock, 2), issue(ca, clock, 90)];
    let reads = 0;
    const reread = (): Promise<Credentials> => {
      reads += 1;
      return Promise.resolve({ password: undefined, tls: renewed });
    };
    const fresh = new FreshCredentials(uplinkOptions({ tls: old, reread }), clock, recordingLog(lines));
    fresh.look();
    expect(reads).to.equal(0);
    clock.advance(1.5 * dayMs);
    fresh.look();
    await until("the new one is in use", () => fresh.now.tls === renewed);
    fresh.look();
    expect(reads).to.equal(1);
    expect(lines.filter(({ level }) => level === "warn")).to.deep.equal([]);
  });

  it("is a gauge, where there is one", async function () {
    if (ca === undefined) return this.skip();
    const none = await Bench.open();
    none.uplink.start();
    expect(none.meter.expose()).to.not.contain("certificate_expires");
    const tls = issue(ca, none.clock, 90);
    const bench = await Bench.open({ tls });
    bench.uplink.start();
    const end = (bench.clock.wallMs() + 90 * dayMs) / 1000;
    expect(bench.metric("tidegate_uplink_certificate_expires_seconds")).to.be.closeTo(end, 5);
    await bench.uplink.stop();
    expect(bench.metric("tidegate_uplink_certificate_expires_seconds")).to.be.NaN;
  });
});
