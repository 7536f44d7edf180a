import { expect } from "chai";
import type { ScryptHash, User } from "../../../../src/base/passwords.ts";
import { addressKey } from "../../../../src/broker/access/addressKey.ts";
import { type LogInResult, LogIns } from "../../../../src/broker/access/logIns.ts";
import { ManualClock } from "../../../helpers/brokerRig.ts";
import { testUser } from "../../../helpers/testUsers.ts";

/** Hashing that the test ends by hand: the password is right when it is "right". */
class Bench {
  readonly clock = new ManualClock();
  readonly hashing: Array<{ kept: ScryptHash; end: () => void }> = [];
  readonly users = new Map<string, User>([["ann", testUser("ann", "right")]]);
  readonly logIns: LogIns;
  hashed = 0;
  runningMax = 0;

  constructor(connectTimeoutMs = 10_000) {
    this.logIns = new LogIns({
      clock: this.clock,
      connectTimeoutMs,
      user: (name) => this.users.get(name),
      verify: (kept, password, settled) => {
        this.hashed += 1;
        const job = {
          kept,
          end: () => {
            this.hashing.splice(this.hashing.indexOf(job), 1);
            settled(Buffer.from(password ?? "").toString() === "right");
          },
        };
        this.hashing.push(job);
        this.runningMax = Math.max(this.runningMax, this.hashing.length);
      },
    });
  }

  /** The result, once it is there. */
  try(password: string, address: string | undefined = "10.0.0.1", name = "ann", wanted = () => true) {
    const seen: { result?: LogInResult["kind"] } = {};
    this.logIns.password({ name, password: Buffer.from(password), address, wanted }, ({ kind }) => {
      expect(seen.result, "settled twice").to.equal(undefined);
      seen.result = kind;
    });
    return seen;
  }

  /** Two failures: from now on the address is slowed down, first for 100 ms. */
  slow(address = "10.0.0.1"): void {
    for (let at = 0; at < 2; at += 1) {
      this.try("wrong", address);
      this.endAll();
    }
    this.hashed = 0;
  }

  /** Ends hashes until none runs. */
  endAll(): void {
    for (let job = this.hashing[0]; job !== undefined; job = this.hashing[0]) job.end();
  }
}

describe("log-ins", () => {
  it("hash one at a time, 64 wait, the next is told to come later", () => {
    const bench = new Bench();
    const all = Array.from({ length: 70 }, (_, at) => bench.try("right", `10.0.1.${at}`));
    expect(bench.logIns.waiting).to.equal(64);
    expect(all.map(({ result }) => result).filter((result) => result === "busy")).to.have.length(5);
    bench.endAll();
    expect(all.filter(({ result }) => result === "right")).to.have.length(65);
    expect(bench.runningMax).to.equal(1);
    expect(bench.logIns.waiting).to.equal(0);
  });

  it("one address has half of the places at most", () => {
    const bench = new Bench();
    const many = Array.from({ length: 60 }, () => bench.try("right"));
    expect(many.filter(({ result }) => result === "busy")).to.have.length(60 - 1 - 32);
    const other = bench.try("right", "10.0.0.2");
    bench.endAll();
    expect(other.result).to.equal("right");
  });

  it("whose connection is gone costs no hash, and gives its place up", () => {
    const bench = new Bench();
    let there = true;
    bench.try("right", "10.0.0.9");
    for (let at = 0; at < 64; at += 1) bench.try("right", `10.0.1.${at}`, "ann", () => there);
    expect(bench.try("right", "10.0.0.2").result).to.equal("busy");
    there = false;
    const other = bench.try("right", "10.0.0.3");
    expect(bench.logIns.waiting).to.equal(1);
    bench.endAll();
    expect(other.result).to.equal("right");
    expect(bench.hashed).to.equal(2);
  });

  it("remembers who logged in for minutes, under the same hash only, and no wrong password", () => {
    const bench = new Bench();
    bench.try("right");
    bench.endAll();
    expect(bench.try("right", "10.9.9.9").result).to.equal("known");
    expect(bench.try("wrong").result).to.equal(undefined);
    bench.endAll();
    expect(bench.hashed).to.equal(2);
    bench.users.set("ann", testUser("ann", "right")); // another salt
    expect(bench.try("right", "10.9.9.9").result).to.equal(undefined);
    bench.endAll();
    bench.clock.advance(11 * 60_000);
    expect(bench.try("right", "10.9.9.9").result).to.equal(undefined);
    bench.endAll();
    expect(bench.hashed).to.equal(4);
    bench.users.delete("ann");
    expect(bench.try("right", "10.9.9.8").result).to.equal(undefined);
  });

  it("does not remember without bound", () => {
    const bench = new Bench();
    for (let at = 0; at < 4200; at += 1) {
      const name = `user-${at}`;
      bench.users.set(name, { ...testUserOnce, name });
      bench.try("right", undefined, name);
      bench.endAll();
    }
    expect(bench.logIns.remembered).to.equal(4096);
    expect(bench.try("right", undefined, "user-4199").result).to.equal("known");
    expect(bench.try("right", undefined, "user-0").result).to.equal(undefined);
  });

  it("hash for who does not exist as well, at the usual cost", () => {
    const bench = new Bench();
    const seen = bench.try("right", "10.0.0.1", "nobody");
    expect(bench.hashing[0]?.kept).to.include({ ln: 14, r: 8, p: 1 });
    bench.endAll();
    expect(seen.result).to.equal("wrong");
  });

  it("judge by what holds when the hash is done", () => {
    const bench = new Bench();
    const same = bench.try("right", "10.0.0.3");
    const ann = bench.users.get("ann");
    if (ann !== undefined) bench.users.set("ann", { ...ann, scrypt: { ...ann.scrypt } }); // read again
    bench.endAll();
    expect(same.result).to.equal("right");
    bench.clock.advance(11 * 60_000);
    const removed = bench.try("right");
    bench.users.delete("ann");
    bench.endAll();
    expect(removed.result).to.equal("wrong");
    expect(bench.try("right", "10.0.0.2").result).to.equal(undefined);
  });

  describe("that fail slow their address down", () => {
    it("each failure but the first doubles the time until the refusal, up to 5 s", () => {
      const bench = new Bench();
      const waits: number[] = [];
      for (let at = 0; at < 10; at += 1) {
        const seen = bench.try("wrong");
        bench.endAll();
        let waitedMs = 0;
        for (; seen.result === undefined; waitedMs += 100) bench.clock.advance(100);
        waits.push(waitedMs);
      }
      expect(waits).to.deep.equal([0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
      bench.clock.advance(11 * 60_000);
      const later = bench.try("wrong");
      bench.endAll();
      expect(later.result).to.equal("wrong");
    });

    it("never beyond half of the time for CONNECT", () => {
      const bench = new Bench(400);
      for (let at = 0; at < 5; at += 1) {
        const seen = bench.try("wrong");
        bench.endAll();
        bench.clock.advance(200);
        expect(seen.result).to.equal("wrong");
      }
    });

    it("attempts of it meanwhile wait unhashed, then one after the other; beyond 8 they are told to come later", () => {
      const bench = new Bench();
      bench.slow();
      const held = Array.from({ length: 10 }, () => bench.try("right"));
      expect(bench.hashed).to.equal(0);
      expect(bench.logIns.held).to.equal(8);
      expect(held.map(({ result }) => result).slice(7)).to.deep.equal([undefined, "busy", "busy"]);
      bench.clock.advance(100);
      expect(bench.hashed).to.equal(1);
      bench.hashing[0]?.end();
      expect(held[0]?.result).to.equal("right"); // never locked out for good
      bench.endAll();
      expect(held.slice(0, 8).every(({ result }) => result === "right")).to.equal(true);
    });

    it("but not others, nor who is remembered", () => {
      const bench = new Bench();
      bench.try("right");
      bench.endAll();
      bench.slow();
      expect(bench.try("right").result).to.equal("known");
      const other = bench.try("wrong", "10.0.0.2");
      bench.endAll();
      expect(other.result).to.equal("wrong");
    });

    it("a failure among those that wait starts the time again for the rest", () => {
      const bench = new Bench();
      bench.slow();
      bench.try("wrong");
      const good = bench.try("right");
      bench.clock.advance(100);
      bench.endAll(); // another wrong one: 200 ms
      bench.clock.advance(199);
      bench.endAll();
      expect(good.result).to.equal(undefined);
      bench.clock.advance(1);
      bench.endAll();
      expect(good.result).to.equal("right");
    });

    it("proofs of SCRAM as well", () => {
      const bench = new Bench();
      const ann = bench.users.get("ann");
      const results: string[] = [];
      const prove = (user: User | undefined): void =>
        bench.logIns.proof(
          { address: "10.0.0.1", wanted: () => true },
          () => user,
          ({ kind }) => results.push(kind),
        );
      prove(undefined);
      prove(undefined);
      prove(ann);
      expect(results).to.deep.equal(["wrong"]);
      bench.clock.advance(100);
      expect(results).to.have.members(["wrong", "wrong", "right"]);
      expect(bench.hashed).to.equal(0);
    });

    it("4096 addresses are known at most, the oldest failure is forgotten first", () => {
      const bench = new Bench();
      for (let at = 0; at < 4097; at += 1) bench.slow(`10.1.${at >> 8}.${at & 255}`);
      bench.clock.advance(5000);
      const first = bench.try("wrong", "10.1.0.0");
      bench.endAll();
      expect(first.result).to.equal("wrong"); // forgotten: at once again
      const last = bench.try("wrong", "10.1.16.0");
      bench.endAll();
      expect(last.result).to.equal(undefined);
    });
  });

  it("an IPv6 address stands for its /64, a mapped one for its IPv4 address", () => {
    const cases = {
      "10.0.0.1": "10.0.0.1",
      "::ffff:10.0.0.1": "10.0.0.1",
      "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
      "2001:DB8:1:2::6": "2001:db8:1:2::/64",
      "2001:db8::6": "2001:db8:0:0::/64",
      "::1": "0:0:0:0::/64",
      "::": "0:0:0:0::/64",
      "fe80::1%eth0": "fe80:0:0:0::/64",
      "1::2:3:4:5:6:7": "1:0:2:3::/64",
      "64:ff9b::1.2.3.4": "64:ff9b:0:0::/64",
      "2001:db8:1:2:3:4:1.2.3.4": "2001:db8:1:2::/64",
    };
    for (const [address, key] of Object.entries(cases)) expect(addressKey(address), address).to.equal(key);
    expect(addressKey(undefined)).to.equal("local");
  });
});

const testUserOnce = testUser("x", "right");
