import { scryptSync } from "node:crypto";
import { expect } from "chai";
import type { HashTask } from "../../../../src/base/passwords.ts";
import { HashThread } from "../../../../src/broker/access/hashThread.ts";
import { ManualClock } from "../../../helpers/brokerRig.ts";

const salt = Buffer.from("0123456789abcdef");
const options = { N: 1024, r: 8, p: 1, maxmem: 4 * 1024 * 1024 };
const task = (password: string): HashTask => ({ password: Buffer.from(password), salt, bytes: 32, options });
const expected = (password: string): string => scryptSync(password, salt, 32, options).toString("hex");

describe("the thread that hashes passwords", () => {
  let clock: ManualClock;
  let thread: HashThread;
  const hashed = async (asked: HashTask): Promise<string | undefined> => {
    const hash = await new Promise<Uint8Array | undefined>((resolve) => thread.hash(asked, resolve));
    return hash === undefined ? undefined : Buffer.from(hash).toString("hex");
  };

  beforeEach(() => {
    clock = new ManualClock();
    thread = new HashThread(clock);
  });

  afterEach(() => thread.close());

  it("is there from the first hash until ten seconds after the last, and gives what scrypt gives", async () => {
    expect(thread.started).to.equal(false);
    expect(await hashed(task("one"))).to.equal(expected("one"));
    clock.advance(9_000);
    expect(await hashed(task("two"))).to.equal(expected("two"));
    clock.advance(9_999);
    expect(thread.started, "the second hash began the ten seconds again").to.equal(true);
    clock.advance(1);
    expect(thread.started).to.equal(false);
    expect(await hashed(task("three")), "started again").to.equal(expected("three"));
  });

  it("a hash under way outlives it, and the next one starts it again", async () => {
    const under = hashed(task("closing"));
    thread.close();
    expect(await under).to.equal(expected("closing"));
    expect(thread.started).to.equal(false);
    expect(await hashed(task("after"))).to.equal(expected("after"));
  });
});
