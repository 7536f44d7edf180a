import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { FreshCredentials } from "../../../src/uplink/freshCredentials.ts";
import type { Credentials } from "../../../src/uplink/options.ts";
import { MovedClock, recordingLog } from "../../helpers/memoryUplink.ts";
import { TestCa } from "../../helpers/testCa.ts";
import { until } from "../../helpers/wait.ts";
import { Bench, closeBenches, uplinkOptions } from "./bench.ts";

const secret = (password: string): Credentials => ({ password, tls: undefined });

describe("uplink: credentials from files", () => {
  it("without files there is nothing to read", () => {
    const fresh = new FreshCredentials(uplinkOptions({ password: "p" }), new MovedClock(), silentLog);
    expect(fresh.inFiles).to.equal(false);
    expect(fresh.now).to.deep.equal(secret("p"));
  });

  it("a disk that does not answer keeps a connection for 5 s, and one thread, however often it is tried", async () => {
    const clock = new MovedClock();
    let asked = 0;
    let answer: (read: Credentials) => void = () => {};
    const reread = (): Promise<Credentials> => {
      asked += 1;
      return new Promise((resolve) => (answer = resolve));
    };
    const fresh = new FreshCredentials(uplinkOptions({ password: "p", reread }), clock, silentLog);
    for (let tries = 0; tries < 3; tries += 1) {
      const refreshed = fresh.refresh();
      clock.advance(5_000);
      await refreshed;
      expect(fresh.now).to.deep.equal(secret("p"));
      expect(fresh.problem).to.contain("within 5 s");
    }
    expect(asked).to.equal(1);
    expect(clock.timers).to.equal(0);
    const refreshed = fresh.refresh();
    answer(secret("p"));
    await until("it is read once more", () => asked === 2);
    answer(secret("q"));
    await refreshed;
    expect(fresh.now).to.deep.equal(secret("q"));
    expect(fresh.problem).to.equal(undefined);
  });

  it("whoever asks gets what the files hold from then on, not what a reading has found that began before", async () => {
    const answers: Array<(read: Credentials) => void> = [];
    const reread = (): Promise<Credentials> => new Promise((resolve) => answers.push(resolve));
    const fresh = new FreshCredentials(uplinkOptions({ password: "p", reread }), new MovedClock(), silentLog);
    const before = fresh.refresh();
    await until("it is being read", () => answers.length === 1);
    const asked = [fresh.refresh(), fresh.refresh()]; // the file is replaced, and SIGHUP says so
    answers[0]?.(secret("p"));
    await before;
    await until("it is read anew", () => answers.length === 2);
    answers[1]?.(secret("q"));
    await Promise.all(asked);
    expect(fresh.now).to.deep.equal(secret("q"));
    expect(answers).to.have.length(2);
  });

  it("several uplinks on a disk that does not answer keep two threads, and those behind them 5 s", async () => {
    const clock = new MovedClock();
    const answers: Array<(read: Credentials) => void> = [];
    const reread = (): Promise<Credentials> => new Promise((resolve) => answers.push(resolve));
    const all = Array.from(
      { length: 6 },
      () => new FreshCredentials(uplinkOptions({ password: "p", reread }), clock, silentLog),
    );
    const refreshed = all.map((fresh) => fresh.refresh());
    await until("it is being read", () => answers.length === 2);
    clock.advance(5_000);
    await Promise.all(refreshed);
    expect(answers).to.have.length(2);
    for (let n = 0; n < all.length; n += 1) {
      await until("it is read", () => answers.length > n);
      answers[n]?.(secret("p"));
    }
  });

  describe("files that are half written", () => {
    let ca: TestCa | undefined;
    before(() => {
      ca = TestCa.make();
    });
    after(() => ca?.remove());

    for (const [what, part] of [
      ["empty", 0],
      ["half", 0.5],
      ["one and a half", 1.5],
    ] as const)
      it(`authorities: ${what}`, async function () {
        if (ca === undefined) return this.skip();
        const whole = ca.ca;
        const tls = { ca: whole };
        const twice = Buffer.concat([whole, whole]);
        let now: Buffer = twice.subarray(0, whole.length * part);
        const reread = (): Promise<Credentials> => Promise.resolve({ password: undefined, tls: { ca: now } });
        const fresh = new FreshCredentials(uplinkOptions({ tls, reread }), new MovedClock(), silentLog);
        await fresh.refresh();
        expect(fresh.now.tls?.ca).to.equal(whole);
        expect(fresh.problem).to.match(/of before stay in use: tls\.ca.* cannot be used: tls\.ca /);
        now = twice;
        await fresh.refresh();
        expect(fresh.now.tls?.ca).to.equal(twice);
        expect(fresh.problem).to.equal(undefined);
      });
  });

  it("what is wrong is logged once, and nothing of a password is", async () => {
    const lines: Parameters<typeof recordingLog>[0] = [];
    const reread = (): Promise<Credentials> => Promise.reject(new Error("/p: no such file"));
    const options = uplinkOptions({ password: "hunter2", reread });
    const fresh = new FreshCredentials(options, new MovedClock(), recordingLog(lines));
    await fresh.refresh();
    await fresh.refresh();
    expect(fresh.problem).to.equal("password and TLS files of before stay in use: /p: no such file");
    expect(lines.map(({ level }) => level)).to.deep.equal(["warn"]);
    expect(JSON.stringify(lines)).to.not.contain("hunter2");
  });
});

describe("uplink: SIGHUP while it connects", () => {
  afterEach(closeBenches);

  it("is not lost: the attempt may have begun with the password of before", async () => {
    let password = "old";
    let asked = 0;
    const reread = (): Promise<Credentials> => Promise.resolve(secret(password));
    const bench = await Bench.open(
      { username: "gw", password, reread },
      {
        connect: (connection, packet) => {
          asked += 1;
          if (asked === 1) {
            password = "new";
            bench.uplink.refresh();
          }
          connection.connack({ code: String(packet["password"]) === "new" ? 0 : 0x86 });
        },
      },
    );
    bench.uplink.start();
    await bench.untilDown();
    expect(bench.uplink.state().reason).to.equal("bad-credentials");
    bench.clock.advance(0);
    await bench.untilUp();
    expect(asked).to.equal(2);
  });
});
