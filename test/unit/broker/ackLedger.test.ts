import { expect } from "chai";
import fc from "fast-check";
import { AckLedger, type AckTarget, ackByte } from "../../../src/broker/ackLedger.ts";

class Target implements AckTarget {
  open = true;
  lastGroup = 0;
  waitingAcks = 0;
  lost = 0;
  readonly written: number[] = [];
  writeAck(_kind: number, packetId: number, _reasonCode: number, count = 1): void {
    for (let at = 0; at < count; at += 1) this.written.push(packetId + at);
  }
  acksSettled(): void {}
  storeLost(): void {
    this.lost += 1;
  }
}

describe("ack ledger", () => {
  it("keeps each connection's order, and writes nothing before its group", () => {
    const step = fc.record({
      target: fc.nat(2),
      durable: fc.boolean(),
      settle: fc.nat(3),
      count: fc.integer({ min: 1, max: 4 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const ledger = new AckLedger(0);
        const targets = [new Target(), new Target(), new Target()];
        const groups = new Map<number, number>();
        let open = 1;
        let ids = 0;
        for (const { target, durable, settle, count } of steps) {
          const first = ids + 1;
          for (let at = 0; at < count; at += 1) groups.set(++ids, durable ? open : 0);
          ledger.add(targets[target] as Target, ackByte.puback, first, 0, durable ? open : 0, count);
          if (settle === 0) {
            ledger.settle(open);
            open += 1;
          }
          for (const { written } of targets) {
            expect(written).to.deep.equal([...written].sort((a, b) => a - b));
            for (const done of written) expect(groups.get(done)).to.be.at.most(ledger.durableGroup);
          }
        }
        ledger.settle(open);
        expect(targets.reduce((sum, { written }) => sum + written.length, 0)).to.equal(ids);
        expect(targets.every(({ waitingAcks }) => waitingAcks === 0)).to.equal(true);
      }),
      { numRuns: 300 },
    );
  });

  it("forgets what waits for a closed connection", () => {
    const ledger = new AckLedger(0);
    const target = new Target();
    ledger.add(target, ackByte.puback, 1, 0, 1);
    target.open = false;
    ledger.settle(1);
    expect(target.written).to.deep.equal([]);
  });

  it("tells all that wait when the store is lost, and later ones at once", () => {
    const ledger = new AckLedger(5);
    const target = new Target();
    const settled: boolean[] = [];
    ledger.add(target, ackByte.puback, 1, 0, 6);
    ledger.whenDurable(6, (durable) => settled.push(durable));
    ledger.lose();
    ledger.whenDurable(7, (durable) => settled.push(durable));
    ledger.whenDurable(5, (durable) => settled.push(durable));
    expect([target.lost, target.written, settled]).to.deep.equal([1, [], [false, false, true]]);
  });

  it("calls back in group order, and in call order within a group", () => {
    const ledger = new AckLedger(0);
    const called: string[] = [];
    for (const [group, name] of [
      [1, "a"],
      [3, "b"],
      [2, "c"],
      [3, "d"],
      [2, "e"],
      [0, "now"],
    ] as const) {
      ledger.whenDurable(group, () => called.push(name));
    }
    ledger.settle(2);
    expect(called).to.deep.equal(["now", "a", "c", "e"]);
    ledger.settle(4);
    expect(called.slice(4)).to.deep.equal(["b", "d"]);
  });
});
