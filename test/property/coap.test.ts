import { expect } from "chai";
import fc from "fast-check";
import { silentLog } from "../../src/base/log.ts";
import { Meter } from "../../src/base/meter.ts";
import { BlockDownload } from "../../src/sources/coap/blockDownload.ts";
import { ClientExchange } from "../../src/sources/coap/clientExchange.ts";
import { ServerExchange, type ServerLimits } from "../../src/sources/coap/serverExchange.ts";
import { Tally } from "../../src/sources/coap/tally.ts";
import { encodeBlock } from "../../src/wire/coap/block.ts";
import { type CoapMessage, encodeMessage, parseMessage } from "../../src/wire/coap/message.ts";
import { FakeClock, FakeIntake } from "../unit/sources/coap/support.ts";

const limits: ServerLimits = {
  maxPayloadBytes: 200,
  maxPending: 5,
  maxSeen: 20,
  maxSeenBytes: 5000,
  maxUploads: 4,
  maxUploadBytes: 4000,
  separateAfterMs: 1000,
};

const optionArbitrary = fc.oneof(
  fc.record({
    number: fc.constantFrom(1, 3, 4, 6, 7, 9, 11, 11, 12, 14, 15, 17, 35, 60, 258, 292, 2053, 65_535),
    value: fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
  }),
  fc.record({
    number: fc.constantFrom(23, 27),
    value: fc
      .record({ num: fc.integer({ min: 0, max: 3 }), more: fc.boolean(), szx: fc.constantFrom(0, 0, 0, 1, 7) })
      .map(encodeBlock),
  }),
);

const messageArbitrary: fc.Arbitrary<CoapMessage> = fc.record({
  type: fc.constantFrom("con", "con", "non", "ack", "rst"),
  code: fc.constantFrom("0.01", "0.02", "0.02", "0.03", "0.04", "2.04", "2.05", "2.05", "2.31", "4.04", "5.03"),
  messageId: fc.integer({ min: 0, max: 12 }),
  token: fc.constantFrom(Buffer.alloc(0), Buffer.from("token"), Buffer.from("12345678")),
  options: fc.array(optionArbitrary, { maxLength: 4 }).map((all) => all.sort((a, b) => a.number - b.number)),
  payload: fc.constantFrom(0, 1, 16, 16, 32, 199, 201).map((length) => Buffer.alloc(length, 0x61)),
});

/** A whole message, one with a byte changed or its end cut off, or noise. */
const datagramArbitrary: fc.Arbitrary<Buffer> = fc.oneof(
  { weight: 4, arbitrary: messageArbitrary.map(encodeMessage) },
  {
    weight: 3,
    arbitrary: fc
      .tuple(messageArbitrary.map(encodeMessage), fc.nat(), fc.integer({ min: 0, max: 255 }), fc.nat())
      .map(([bytes, at, value, cut]) => {
        bytes[at % bytes.length] = value;
        return cut % 3 === 0 ? bytes.subarray(0, cut % (bytes.length + 1)) : bytes;
      }),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes)) },
);

const outcomes = [
  { kind: "durable", value: 1 },
  { kind: "refused", reason: "full" },
  { kind: "undecodable", why: "?" },
  "later",
  "throw",
] as const;

describe("CoAP, whatever comes", () => {
  it("a parsed message is written and read as itself", () => {
    fc.assert(
      fc.property(messageArbitrary, (message) => {
        expect(parseMessage(encodeMessage(message))).to.deep.equal({ kind: "message", message });
      }),
      { numRuns: 200 },
    );
  });

  it("what parses, parses the same after writing", () => {
    fc.assert(
      fc.property(datagramArbitrary, (datagram) => {
        const read = parseMessage(datagram);
        if (read.kind !== "message") return;
        expect(parseMessage(encodeMessage(read.message))).to.deep.equal(read);
      }),
      { numRuns: 300 },
    );
  });

  it("the server throws nothing, stays within its limits, and answers with whole messages", () => {
    const step = fc.tuple(
      datagramArbitrary,
      fc.integer({ min: 1, max: 4 }),
      fc.nat({ max: 4 }),
      fc.constantFrom(0, 0, 0, 500, 50_000),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const clock = new FakeClock();
        const intake = new FakeIntake();
        const tally = new Tally(new Meter(), "s");
        let sent = 0;
        const server = new ServerExchange({
          source: "s",
          limits,
          intake,
          clock,
          log: silentLog,
          tally,
          random: () => 0.5,
          send: (bytes) => {
            sent += 1;
            expect(parseMessage(bytes).kind).to.equal("message");
          },
          onDuplicate: () => {},
          onForgotten: () => {},
        });
        for (const [datagram, port, outcome, advanceMs] of steps) {
          intake.outcome = outcomes[outcome] ?? "later";
          const before = sent;
          server.receive(datagram, { address: "192.0.2.1", port });
          expect(sent - before).to.be.at.most(1);
          clock.advance(advanceMs);
          if (intake.waiting.length > 3) intake.waiting.shift()?.({ kind: "durable", value: 1 });
          const usage = server.usage;
          expect(usage.pending).to.be.at.most(limits.maxPending);
          expect(usage.seen).to.be.at.most(limits.maxSeen);
          expect(usage.seenBytes).to.be.within(0, limits.maxSeenBytes);
          expect(usage.uploads).to.be.at.most(limits.maxUploads);
          expect(usage.uploadBytes).to.be.within(0, limits.maxUploadBytes);
          expect(usage.separate).to.be.at.most(limits.maxPending);
        }
        for (const { payload } of intake.readings) expect(payload.length).to.be.at.most(limits.maxPayloadBytes);
        server.close();
        expect(clock.timers).to.equal(0);
        expect(server.usage).to.deep.equal({
          pending: 0,
          seen: 0,
          seenBytes: 0,
          uploads: 0,
          uploadBytes: 0,
          separate: 0,
        });
      }),
      { numRuns: 200 },
    );
  });

  it("the client throws nothing, stays bounded, and ends each request at most once", () => {
    const step = fc.tuple(datagramArbitrary, fc.boolean(), fc.constantFrom(0, 0, 0, 3000));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const clock = new FakeClock();
        let ended = 0;
        const taking = { now: true };
        const settle = ({ accept, release }: { accept(): void; release(): void }): void =>
          taking.now ? accept() : release();
        const client = new ClientExchange(
          {
            clock,
            random: () => 0.5,
            transmit: (bytes) => expect(parseMessage(bytes).kind).to.equal("message"),
            onNotification: settle,
            onDropped: () => {},
          },
          5,
        );
        client.observe(Buffer.from("token"));
        client.get(Buffer.from("12345678"), [], 93_000, (result) => {
          ended += 1;
          if (result.kind === "response") settle(result.incoming);
        });
        for (const [datagram, accepts, advanceMs] of steps) {
          taking.now = accepts;
          client.receive(datagram);
          clock.advance(advanceMs);
          expect(ended).to.be.at.most(1);
          expect(client.usage.seen).to.be.at.most(steps.length);
        }
        client.close();
        expect(clock.timers).to.equal(0);
      }),
      { numRuns: 200 },
    );
  });

  it("a body cut into any blocks comes out whole", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 1, max: 5000 }), (szx, length) => {
        const body = Buffer.from(Array.from({ length }, (_, at) => at & 0xff));
        const size = 2 ** (szx + 4);
        const download = new BlockDownload(5000);
        for (let num = 0; ; num += 1) {
          const payload = body.subarray(num * size, (num + 1) * size);
          const more = (num + 1) * size < length;
          const options = [{ number: 23, value: encodeBlock({ num, more, szx }) }];
          const step = download.add({
            type: "ack",
            code: "2.05",
            messageId: num,
            token: Buffer.alloc(0),
            options,
            payload,
          });
          if (step.kind === "complete") {
            expect(step.body.equals(body)).to.equal(true);
            break;
          }
          expect(step).to.deep.equal({ kind: "next", block: { num: num + 1, more: false, szx } });
        }
      }),
      { numRuns: 100 },
    );
  });
});
