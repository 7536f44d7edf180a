import { expect } from "chai";
import fc from "fast-check";
import { type AckByte, AckLedger, type AckTarget, ackByte } from "../../../src/broker/ackLedger.ts";

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

  it("what differs in more than the packet id, or does not follow, is written as it was added", () => {
    const [puback, pubrec] = [ackByte.puback, ackByte.pubrec];
    const added: Array<[target: number, kind: AckByte, id: number, code: number]> = [
      [0, puback, 1, 0],
      [0, puback, 2, 0],
      [0, puback, 4, 0],
      [0, puback, 5, 0x97],
      [0, puback, 6, 0x97],
      [0, pubrec, 7, 0x97],
      [1, pubrec, 8, 0x97],
      [0, puback, 65_535, 0],
      [0, puback, 1, 0],
      [0, puback, 1, 0],
    ];
    const ledger = new AckLedger(0);
    const written: unknown[] = [];
    const settled: unknown[] = [];
    const targets = [0, 1].map((at) => {
      const target = new Target();
      target.writeAck = (kind: number, id: number, code: number, count = 1) => {
        for (let n = 0; n < count; n += 1) written.push([at, kind, id + n, code]);
      };
      target.acksSettled = () => void settled.push([at, target.waitingAcks]);
      return target;
    });
    for (const [at, kind, id, code] of added) ledger.add(targets[at]!, kind, id, code, 1);
    expect(targets.map(({ waitingAcks }) => waitingAcks)).to.deep.equal([9, 1]);
    ledger.settle(1);
    expect(written).to.deep.equal(added);
    expect(new Set(settled.map(String))).to.deep.equal(new Set(["0,0", "1,0"]));
  });

  it("what follows each other is written at once, and nothing more once the connection is closed", () => {
    const ledger = new AckLedger(0);
    const target = new Target();
    const written: unknown[] = [];
    target.writeAck = (_kind: number, id: number, _code: number, count?: number) => {
      written.push([id, count]);
      target.open = id < 7;
    };
    for (const id of [1, 2, 3, 7, 8, 10]) ledger.add(target, ackByte.puback, id, 0, 1);
    ledger.settle(1);
    expect(written).to.deep.equal([
      [1, 3],
      [7, 2],
    ]);
    expect(target.waitingAcks).to.equal(0);
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
