import { expect } from "chai";
import type { Source } from "../../../../src/base/contracts.ts";
import { type CoapClientOptions, createCoapClientSource } from "../../../../src/sources/coap/coapClientSource.ts";
import { encodeBlock } from "../../../../src/wire/coap/block.ts";
import type { CoapMessage, CoapOption } from "../../../../src/wire/coap/message.ts";
import { encodeUint } from "../../../../src/wire/coap/options.ts";
import { makeDeps, option, Peer, until } from "./support.ts";

describe("coap source, requests", () => {
  let deps: ReturnType<typeof makeDeps>;
  let source: Source;
  let sensor: Peer;

  async function watch(options: Partial<CoapClientOptions> = {}): Promise<void> {
    deps = makeDeps();
    const url = `coap://127.0.0.1:${sensor.port}/temp/in?unit=c`;
    source = createCoapClientSource({ name: "yard", url, observe: true, ...options }, deps);
    await source.start();
  }

  beforeEach(async () => {
    sensor = await Peer.open();
  });

  afterEach(async () => {
    sensor.onMessage = () => {};
    let stopped = false;
    const stop = source.stop().then(() => {
      stopped = true;
    });
    await until(() => {
      deps.clock.advance(50);
      return stopped;
    }, "the stop");
    await stop;
    await sensor.close();
    expect(deps.clock.timers).to.equal(0);
  });

  const observe = (sequence: number): CoapOption => ({ number: 6, value: encodeUint(sequence) });
  const block2 = (num: number, more: boolean): CoapOption => ({
    number: 23,
    value: encodeBlock({ num, more, szx: 0 }),
  });
  const text = (value: string): Buffer => Buffer.from(value);
  const dropped = (): Record<string, number> => ({ ...source.state().dropped });
  let nextId = 0x4000;

  function answer(request: CoapMessage, value: string, ...options: CoapOption[]): void {
    const { messageId, token } = request;
    sensor.send({ type: "ack", code: "2.05", messageId, token, options, payload: text(value) });
  }

  async function registered(...options: CoapOption[]): Promise<CoapMessage> {
    const request = await sensor.next("the registration");
    answer(request, "first", observe(10), ...options);
    await until(() => source.state().link === "up", "the link");
    return request;
  }

  /** A notification; its message id. */
  function notify(token: Buffer, sequence: number, value: string, more: Partial<CoapMessage> = {}): number {
    nextId += 1;
    sensor.send({
      code: "2.05",
      messageId: nextId,
      token,
      options: [observe(sequence)],
      payload: text(value),
      ...more,
    });
    return nextId;
  }

  /** Everything sent before this was handled: a ping is answered with a Reset. */
  async function settled(): Promise<void> {
    sensor.empty("con", 0xeeee);
    expect(await sensor.next("the answer to a ping")).to.include({ type: "rst", messageId: 0xeeee });
  }

  describe("separate responses", () => {
    it("waits after an empty acknowledgement and acknowledges the response when it is durable", async () => {
      await watch({ observe: false, everyMs: 200_000 });
      const request = await sensor.next();
      expect(option(request, 6)).to.equal(undefined);
      sensor.empty("ack", request.messageId);
      await settled();
      deps.clock.advance(50_000); // no copies any more
      await settled();
      deps.intake.outcome = "later";
      sensor.send({ type: "con", code: "2.05", messageId: 99, token: request.token, payload: text("slow") });
      await until(() => deps.intake.waiting.length === 1, "the reading");
      await settled();
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      expect(await sensor.next()).to.include({ type: "ack", code: "0.00", messageId: 99 });
    });

    it("ignores an acknowledgement with another token", async () => {
      await watch();
      const { messageId, token } = await sensor.next();
      sensor.send({ type: "ack", code: "2.05", messageId, token: Buffer.from("forged"), payload: text("x") });
      await settled();
      expect(deps.intake.texts).to.deep.equal([]);
      sensor.send({ type: "ack", code: "2.05", messageId, token, payload: text("true") });
      await until(() => deps.intake.texts.length === 1, "the true answer");
    });
  });

  describe("polling", () => {
    it("asks each interval with a new token, one request at a time", async () => {
      await watch({ observe: false, everyMs: 10_000 });
      const first = await sensor.next();
      answer(first, "1");
      await until(() => source.state().accepted === 1, "1");
      deps.clock.advance(10_000);
      const second = await sensor.next();
      expect(second.token).not.to.deep.equal(first.token);
      deps.clock.advance(2400); // late, but before the copy
      answer(second, "2");
      await until(() => source.state().accepted === 2, "2");
      deps.clock.advance(7600); // the beat is kept
      await sensor.next("the third");
    });

    it("is down after its deadline and tries again at the next beat", async () => {
      await watch({ observe: false, everyMs: 10_000, requestTimeoutMs: 2000 });
      await sensor.next();
      deps.clock.advance(2000);
      expect(source.state()).to.deep.include({ link: "down", problem: "no answer" });
      deps.clock.advance(8000);
      answer(await sensor.next(), "1");
      await until(() => source.state().link === "up", "up");
    });
  });

  describe("block-wise values", () => {
    const part = (value: string): Buffer => text(value.padEnd(16, "."));
    const etag = (value: string): CoapOption => ({ number: 4, value: text(value) });

    function block(request: CoapMessage, payload: Buffer, ...options: CoapOption[]): void {
      const { messageId, token } = request;
      sensor.send({ type: "ack", code: "2.05", messageId, token, options, payload });
    }

    it("puts a response together", async () => {
      await watch();
      block(await sensor.next(), part("one"), observe(1), block2(0, true), etag("v1"));
      const next = await sensor.next("the request for block 1");
      expect([option(next, 23), option(next, 6)]).to.deep.equal(["10", undefined]);
      block(next, part("two"), block2(1, true), etag("v1"));
      block(await sensor.next(), text("three"), block2(2, false), etag("v1"));
      await until(() => source.state().accepted === 1, "the value");
      expect(deps.intake.texts).to.deep.equal([`${part("one")}${part("two")}three`]);
    });

    it("acknowledges a notification when all of its blocks are durable", async () => {
      await watch();
      const { token } = await registered();
      const messageId = notify(token, 11, part("one").toString(), { options: [observe(11), block2(0, true)] });
      block(await sensor.next("the request for block 1"), text("two"), block2(1, false));
      expect(await sensor.next()).to.include({ type: "ack", code: "0.00", messageId });
      expect(deps.intake.texts[1]).to.equal(`${part("one")}two`);
    });

    it("does not mix two values: asks again", async () => {
      await watch();
      block(await sensor.next(), part("one"), observe(1), block2(0, true), etag("v1"));
      block(await sensor.next(), part("two"), block2(1, false), etag("v2"));
      await until(() => dropped()["malformed"] === 1, "the mixture");
      deps.clock.advance(1000);
      block(await sensor.next("the value anew"), text("short"), observe(2));
      await until(() => deps.intake.texts.length === 1, "the value");
      expect(deps.intake.texts).to.deep.equal(["short"]);
    });

    it("ends at the limit", async () => {
      await watch({ maxPayloadBytes: 20 });
      block(await sensor.next(), part("one"), observe(1), block2(0, true));
      block(await sensor.next(), part("two"), block2(1, false));
      await until(() => dropped()["too-large"] === 1, "the refusal");
      expect(deps.intake.readings).to.have.length(0);
    });

    it("gives up an old value for a newer one", async () => {
      await watch();
      const { token } = await registered();
      notify(token, 11, part("old").toString(), { options: [observe(11), block2(0, true)] });
      await sensor.next("the request for block 1");
      const messageId = notify(token, 12, "new");
      expect(await sensor.next()).to.include({ type: "ack", messageId });
      expect(deps.intake.texts).to.deep.equal(["first", "new"]);
      expect(dropped()).to.deep.equal({ superseded: 1 });
    });
  });
});
