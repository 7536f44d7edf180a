import { expect } from "chai";
import {
  type CoapServerOptions,
  type CoapServerSource,
  createCoapServerSource,
} from "../../../../src/sources/coap/coapServerSource.ts";
import { encodeBlock } from "../../../../src/wire/coap/block.ts";
import type { CoapMessage, CoapOption } from "../../../../src/wire/coap/message.ts";
import { encodeUint } from "../../../../src/wire/coap/options.ts";
import { makeDeps, option, Peer, path, until } from "./support.ts";

describe("coap-server source, exchanges", () => {
  let deps: ReturnType<typeof makeDeps>;
  let source: CoapServerSource;
  let peer: Peer;
  const extra: Array<{ close(): Promise<void> }> = [];

  async function serve(options: Partial<CoapServerOptions> = {}): Promise<void> {
    deps = makeDeps();
    source = createCoapServerSource({ name: "field", listen: { host: "127.0.0.1", port: 0 }, ...options }, deps);
    await source.start();
    peer = await Peer.open(source.address().port);
  }

  beforeEach(() => serve());

  afterEach(async () => {
    const stopped = source.stop();
    deps.clock.advance(2000);
    await stopped;
    await peer.close();
    for (const opened of extra.splice(0)) await opened.close();
  });

  /** Whatever the server sends after this ping was answered was caused by something later. */
  async function settled(): Promise<void> {
    peer.empty("con", 0xeeee);
    const answer = await peer.next("the answer to a ping");
    expect([answer.type, answer.messageId]).to.deep.equal(["rst", 0xeeee]);
  }

  const block1 = (num: number, more: boolean, szx = 0): CoapOption => ({
    number: 27,
    value: encodeBlock({ num, more, szx }),
  });
  const dropped = (): Record<string, number> => ({ ...source.state().dropped });

  describe("message layer", () => {
    it("answers a ping with a Reset", settled);

    it("resets a malformed Confirmable message, and is silent to all else that is no request", async () => {
      for (const hex of [
        "",
        "40",
        "400212",
        "8002123401",
        "00020001",
        "c0020001",
        "5001",
        "49020001010203040506070809",
      ]) {
        peer.raw(Buffer.from(hex, "hex"));
      }
      expect(await peer.next()).to.include({ type: "rst", messageId: 1 }); // the last one: token length 9
      peer.raw(Buffer.from("4002000207", "hex")); // an option that is cut
      expect(await peer.next()).to.include({ type: "rst", messageId: 2 });
      peer.raw(Buffer.from("40020003ff", "hex")); // a marker without payload
      expect(await peer.next()).to.include({ type: "rst", messageId: 3 });
      peer.raw(Buffer.from("40e20004", "hex")); // code class 7
      expect(await peer.next()).to.include({ type: "rst", messageId: 4 });
      peer.send({ type: "con", code: "2.05", messageId: 5 }); // a response that nobody asked for
      expect(await peer.next()).to.include({ type: "rst", messageId: 5 });
      peer.send({ type: "non", code: "2.05", messageId: 6 });
      peer.empty("ack", 7);
      peer.empty("rst", 8);
      peer.empty("non", 9);
      peer.raw(Buffer.from("50ff000a", "hex"));
      await settled();
      expect(deps.intake.readings).to.have.length(0);
    });

    it("answers a copy with the same response, without taking it again", async () => {
      const first = await peer.ask({ messageId: 7, payload: Buffer.from("a") });
      const second = await peer.ask({ messageId: 7, payload: Buffer.from("a") });
      expect(second).to.deep.equal(first);
      peer.send({ type: "non", messageId: 8 });
      await peer.next();
      peer.send({ type: "non", messageId: 8 });
      await settled();
      expect(deps.intake.readings).to.have.length(2);
      expect(deps.meter.expose()).to.include('tidegate_coap_duplicates_total{source="field"} 2');
    });

    it("repeats a refusal as it was, even when there is room now", async () => {
      deps.intake.outcome = { kind: "refused", reason: "full" };
      await peer.ask({ messageId: 7 });
      deps.intake.outcome = { kind: "durable", value: 1 };
      expect((await peer.ask({ messageId: 7 })).code).to.equal("5.03");
      expect((await peer.ask({ messageId: 8 })).code).to.equal("2.04");
    });

    it("takes another message with the same id for what it is: a sensor that was reset counts from the start", async () => {
      await peer.ask({ messageId: 7, payload: Buffer.from("a") });
      await peer.ask({ messageId: 7, payload: Buffer.from("b") });
      expect(deps.intake.texts).to.deep.equal(["a", "b"]);
    });

    it("knows endpoints by address and port", async () => {
      const other = await Peer.open(source.address().port);
      extra.push(other);
      await peer.ask({ messageId: 7 });
      await other.ask({ messageId: 7 });
      expect(deps.intake.readings).to.have.length(2);
    });

    it("forgets after EXCHANGE_LIFETIME, for Non-confirmable ones after NON_LIFETIME", async () => {
      await peer.ask({ messageId: 7 });
      await peer.ask({ type: "non", messageId: 8 });
      deps.clock.advance(144_999);
      peer.send({ type: "non", messageId: 8 });
      await settled();
      deps.clock.advance(2);
      await peer.ask({ type: "non", messageId: 8 });
      deps.clock.advance(101_998);
      await peer.ask({ messageId: 7 });
      expect(deps.intake.readings).to.have.length(3);
      deps.clock.advance(2);
      await peer.ask({ messageId: 7 });
      expect(deps.intake.readings).to.have.length(4);
    });

    it("forgets the oldest first when there are too many, and counts it", async () => {
      await peer.close();
      await source.stop();
      await serve({ maxSeen: 3 });
      for (const messageId of [1, 2, 3, 4]) await peer.ask({ messageId });
      await peer.ask({ messageId: 2 });
      expect(deps.intake.readings).to.have.length(4);
      await peer.ask({ messageId: 1 });
      expect(deps.intake.readings).to.have.length(5);
      expect(deps.meter.expose()).to.match(/tidegate_coap_forgotten_total\{source="field"\} 2\n/);
    });
  });

  describe("separate responses", () => {
    beforeEach(async () => {
      deps.intake.outcome = "later";
      peer.send({ messageId: 77, payload: Buffer.from("slow") });
      await until(() => deps.intake.waiting.length === 1, "the reading");
      deps.clock.advance(1000);
      expect(await peer.next("the empty acknowledgement")).to.include({ type: "ack", code: "0.00", messageId: 77 });
    });

    it("acknowledges empty after a second, answers when durable, and again until that is acknowledged", async () => {
      peer.send({ messageId: 77, payload: Buffer.from("slow") });
      expect(await peer.next("the copy's acknowledgement")).to.include({ type: "ack", code: "0.00", messageId: 77 });
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      const response = await peer.next("the separate response");
      expect(response).to.include({ type: "con", code: "2.04" });
      expect(response.token.toString("hex")).to.equal("aa");
      deps.clock.advance(3000);
      expect(await peer.next("the response again")).to.deep.equal(response);
      peer.empty("ack", response.messageId);
      await settled();
      deps.clock.advance(100_000);
      await settled();
      expect(deps.intake.readings).to.have.length(1);
      expect(dropped()).to.deep.equal({});
    });

    it("gives up after four copies, counted", async () => {
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      for (let copy = 0; copy < 5; copy += 1) {
        await peer.next("the separate response");
        deps.clock.advance(2500 * 2 ** copy);
      }
      await settled();
      expect(dropped()).to.deep.equal({ "response-lost": 1 });
    });

    it("stops at a Reset", async () => {
      deps.intake.waiting[0]?.({ kind: "refused", reason: "full" });
      const response = await peer.next("the separate response");
      expect(response.code).to.equal("5.03");
      peer.empty("rst", response.messageId);
      await settled();
      deps.clock.advance(100_000);
      await settled();
      expect(dropped()).to.deep.equal({ full: 1 });
    });

    it("forgets a request whose reading never settles", async () => {
      deps.clock.advance(250_000);
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      await settled();
      expect(dropped()).to.deep.equal({ "response-lost": 1 });
    });
  });

  describe("block-wise uploads", () => {
    const part = (text: string): Buffer => Buffer.from(text.padEnd(16, "."));
    const upload = (messageId: number, option1: CoapOption, payload: Buffer, more: Partial<CoapMessage> = {}) =>
      peer.ask({ messageId, token: Buffer.from([messageId]), options: [...path("big"), option1], payload, ...more });

    it("puts blocks together, each with a token of its own", async () => {
      const first = await upload(1, block1(0, true), part("one"));
      expect([first.code, option(first, 27)]).to.deep.equal(["2.31", "08"]);
      expect((await upload(2, block1(1, true), part("two"))).code).to.equal("2.31");
      expect((await upload(2, block1(1, true), part("two"))).code).to.equal("2.31"); // a copy
      const last = await upload(3, block1(2, false), Buffer.from("three"));
      expect([last.code, option(last, 27)]).to.deep.equal(["2.04", "20"]);
      expect(deps.intake.texts).to.deep.equal([`${part("one")}${part("two")}three`]);
    });

    it("takes a single block for the whole", async () => {
      const answer = await upload(1, block1(0, false), Buffer.from("all"));
      expect([answer.code, option(answer, 27), deps.intake.texts]).to.deep.equal(["2.04", "", ["all"]]);
    });

    it("answers 4.08 to a block that does not come next, and goes on with the right one", async () => {
      expect((await upload(1, block1(1, true), part("x"))).code).to.equal("4.08");
      await upload(2, block1(0, true), part("one"));
      expect((await upload(3, block1(2, false), part("three"))).code).to.equal("4.08");
      expect((await upload(4, block1(1, false), Buffer.from("two"))).code).to.equal("2.04");
      expect(dropped()).to.deep.equal({ "block-gap": 2 });
    });

    it("begins again at block 0", async () => {
      await upload(1, block1(0, true), part("old"));
      await upload(2, block1(0, true), part("new"));
      await upload(3, block1(1, false), Buffer.from("!"));
      expect(deps.intake.texts).to.deep.equal([`${part("new")}!`]);
    });

    it("keeps uploads of other paths and Request-Tags apart", async () => {
      const tag = (value: string): CoapOption => ({ number: 292, value: Buffer.from(value) });
      for (const [messageId, value] of [
        [1, "a"],
        [2, "b"],
      ] as const) {
        await upload(messageId, block1(0, true), part(value), {
          options: [...path("big"), block1(0, true), tag(value)],
        });
      }
      await upload(3, block1(1, false), Buffer.from("!"), { options: [...path("big"), block1(1, false), tag("a")] });
      expect(deps.intake.texts).to.deep.equal([`${part("a")}!`]);
      expect((await upload(4, block1(1, false), Buffer.from("!"))).code).to.equal("4.08");
    });

    it("refuses blocks that contradict their option", async () => {
      expect((await upload(1, block1(0, true), Buffer.from("short"))).code).to.equal("4.00");
      expect((await upload(2, block1(0, false), Buffer.alloc(17))).code).to.equal("4.00");
      expect((await upload(3, { number: 27, value: Buffer.from([0x0f]) }, part("x"))).code).to.equal("4.00");
    });

    it("answers 4.13 with the size that it would take", async () => {
      await peer.close();
      await source.stop();
      await serve({ maxPayloadBytes: 40 });
      const announced = await upload(1, block1(0, true), part("x"), {
        options: [...path("big"), block1(0, true), { number: 60, value: encodeUint(41) }],
      });
      expect([announced.code, option(announced, 60)]).to.deep.equal(["4.13", "28"]);
      await upload(2, block1(0, true), part("one"));
      await upload(3, block1(1, true), part("two"));
      expect((await upload(4, block1(2, false), Buffer.from("too large"))).code).to.equal("4.13");
      expect((await upload(5, block1(2, false), Buffer.from("eight by"))).code).to.equal("4.08"); // it is gone
      expect((await peer.ask({ messageId: 6, payload: Buffer.alloc(41) })).code).to.equal("4.13");
      expect(deps.intake.readings).to.have.length(0);
    });

    it("gives up the oldest beyond the limit, and any after its time", async () => {
      await peer.close();
      await source.stop();
      await serve({ maxUploads: 2 });
      const begin = (messageId: number, name: string) =>
        upload(messageId, block1(0, true), part(name), { options: [...path(name), block1(0, true)] });
      const end = (messageId: number, name: string) =>
        upload(messageId, block1(1, false), Buffer.from("!"), { options: [...path(name), block1(1, false)] });
      for (const [at, name] of ["a", "b", "c"].entries()) expect((await begin(at, name)).code).to.equal("2.31");
      expect((await end(10, "a")).code).to.equal("4.08");
      expect((await end(11, "b")).code).to.equal("2.04");
      deps.clock.advance(247_001);
      expect((await end(12, "c")).code).to.equal("4.08");
      expect(dropped()).to.deep.equal({ "block-evicted": 1, "block-gap": 2, "block-expired": 1 });
    });
  });
});
