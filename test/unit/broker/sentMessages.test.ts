import { expect } from "chai";
import fc from "fast-check";
import { idCount, idOf, type NextAnswer, ReceivedMessages, SentMessages } from "../../../src/broker/sentMessages.ts";

describe("messages on their way to a durable session", () => {
  it("are what a map would say they are, in any order, with some never answered and ids that have gone round", () => {
    const answers: NextAnswer[] = ["puback", "pubrec", "pubcomp"];
    let seed = 7;
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((seed / 2_147_483_648) * below);
    };
    for (const [first, window] of [
      [1, 20],
      [idCount - 50, 40],
      [2 ** 40, 300],
    ] as const) {
      const sent = new SentMessages();
      const model = new Map<number, { ordinal: number; next: NextAnswer }>();
      let ordinal = first;
      for (let step = 0; step < 4000; step += 1) {
        const ids = [...model.keys()];
        if (model.size < window && random(2) === 0 && !model.has(idOf(ordinal))) {
          const next = answers[random(3)]!;
          sent.set(ordinal, next);
          model.set(idOf(ordinal), { ordinal, next });
          ordinal += 1 + (random(50) === 0 ? random(5000) : 0);
        } else if (ids.length > 5) {
          // The five oldest are never answered.
          const id = ids[5 + random(Math.min(4, ids.length - 5))]!;
          const known = model.get(id)!;
          if (random(4) > 0) {
            sent.delete(id);
            model.delete(id);
          } else {
            sent.set(known.ordinal, "pubcomp");
            known.next = "pubcomp";
          }
        }
        const id = 1 + random(idCount);
        for (const one of [id, ids[0] ?? 1, ids.at(-1) ?? 2]) {
          expect(sent.ordinal(one)).to.equal(model.get(one)?.ordinal ?? 0);
          expect(sent.next(one)).to.equal(model.get(one)?.next);
          expect(sent.has(one)).to.equal(model.has(one));
        }
        expect(sent.size).to.equal(model.size);
      }
      sent.clear();
      for (const one of model.keys()) expect(sent.has(one)).to.equal(false);
      expect(sent.size).to.equal(0);
    }
  });
});

describe("messages whose PUBREC came", () => {
  it("property: those that are not done are told in the order of their PUBRECs, whatever is done in between", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 600 }), (picks) => {
        const sent = new SentMessages();
        const received = new ReceivedMessages([]);
        const open: number[] = [];
        for (const [at, pick] of picks.entries()) {
          const ordinal = at * 3 + 1;
          sent.set(ordinal, pick % 7 === 0 ? "pubrec" : "pubcomp");
          if (pick % 7 > 0) {
            received.add(ordinal);
            open.push(ordinal);
          }
          if (pick % 5 < 3 && open.length > 0) {
            const [done = 0] = open.splice(pick % open.length, 1);
            expect(sent.awaitsPubcomp(done)).to.equal(true);
            sent.delete(idOf(done));
            received.done(sent);
            expect(sent.awaitsPubcomp(done)).to.equal(false);
          }
          if (pick % 50 === 0) expect(received.of(sent)).to.deep.equal(open);
        }
        expect(received.of(sent)).to.deep.equal(open);
        sent.clear(); // the connection has ended: they are still known
        expect(received.of(sent)).to.deep.equal(open);
      }),
      { numRuns: 100 },
    );
  });
});
