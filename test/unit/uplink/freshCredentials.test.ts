import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { FreshCredentials } from "../../../src/uplink/freshCredentials.ts";
import type { Credentials } from "../../../src/uplink/options.ts";
import { MovedClock, recordingLog } from "../../helpers/memoryUplink.ts";
import { uplinkOptions } from "./bench.ts";

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
    answer(secret("q"));
    await refreshed;
    expect(fresh.now).to.deep.equal(secret("q"));
    expect(fresh.problem).to.equal(undefined);
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
