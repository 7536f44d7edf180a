import { expect } from "chai";
import type { Source } from "../../../../src/base/contracts.ts";
import { type CoapClientOptions, createCoapClientSource } from "../../../../src/sources/coap/coapClientSource.ts";
import type { CoapMessage, CoapOption } from "../../../../src/wire/coap/message.ts";
import { encodeUint } from "../../../../src/wire/coap/options.ts";
import { makeDeps, option, Peer, until } from "./support.ts";

describe("coap source", () => {
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
  const maxAge = (seconds: number): CoapOption => ({ number: 14, value: encodeUint(seconds) });
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

  describe("observing", () => {
    it("registers with Observe 0 for the resource of the URL, with a random token", async () => {
      await watch();
      const request = await sensor.next();
      expect(request).to.include({ type: "con", code: "0.01" });
      expect(request.token).to.have.length(8);
      expect(request.options.map(({ number, value }) => [number, value.toString()])).to.deep.equal([
        [6, ""],
        [11, "temp"],
        [11, "in"],
        [15, "unit=c"],
      ]);
      expect(source.state()).to.include({ link: "connecting", accepted: 0, type: "coap" });
      answer(request, "21", observe(1), { number: 12, value: encodeUint(50) });
      await until(() => source.state().accepted === 1, "the first value");
      expect(deps.intake.readings[0]).to.deep.include({ source: "yard", contentFormat: 50 });
      expect(source.state()).to.include({ link: "up" });
      expect(deps.meter.expose()).to.include('tidegate_source_up{source="yard"} 1');
    });

    it("acknowledges a notification only once it is durable", async () => {
      await watch();
      const { token } = await registered();
      deps.intake.outcome = "later";
      const messageId = notify(token, 11, "second");
      await until(() => deps.intake.waiting.length === 1, "the reading");
      await settled();
      sensor.send({ code: "2.05", messageId, token, options: [observe(11)], payload: text("second") }); // a copy meanwhile
      await settled();
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      expect(await sensor.next()).to.include({ type: "ack", code: "0.00", messageId });
      sensor.send({ code: "2.05", messageId, token, options: [observe(11)], payload: text("second") }); // and after
      expect(await sensor.next()).to.include({ type: "ack", messageId });
      expect(deps.intake.texts).to.deep.equal(["first", "second"]);
      expect(source.state().accepted).to.equal(2);
    });

    it("leaves a refused notification without acknowledgement and takes its copy", async () => {
      await watch();
      const { token } = await registered();
      deps.intake.outcome = { kind: "refused", reason: "full" };
      const messageId = notify(token, 11, "x");
      await until(() => dropped()["full"] === 1, "the refusal");
      await settled();
      deps.intake.outcome = { kind: "durable", value: 1 };
      sensor.send({ code: "2.05", messageId, token, options: [observe(11)], payload: text("x") });
      expect(await sensor.next()).to.include({ type: "ack", messageId });
      expect(source.state().accepted).to.equal(2);
      expect(dropped()).to.deep.equal({ full: 1 });
    });

    it("asks again when a value that will not come again was refused", async () => {
      await watch();
      const request = await sensor.next();
      deps.intake.outcome = { kind: "refused", reason: "failed" };
      answer(request, "first", observe(1));
      await until(() => dropped()["failed"] === 1, "the refusal");
      deps.clock.advance(1000);
      const again = await sensor.next("the next request");
      expect(again.token).to.deep.equal(request.token);
      expect(again.messageId).not.to.equal(request.messageId);
      deps.intake.outcome = { kind: "durable", value: 1 };
      answer(again, "first", observe(2));
      await until(() => source.state().accepted === 1, "the value");
    });

    it("acknowledges and counts what cannot be decoded", async () => {
      await watch();
      const { token } = await registered();
      deps.intake.outcome = { kind: "undecodable", why: "no CBOR" };
      const messageId = notify(token, 11, "x");
      expect(await sensor.next()).to.include({ type: "ack", messageId });
      expect(dropped()).to.deep.equal({ undecodable: 1 });
      expect(source.state().link).to.equal("up");
    });

    it("drops notifications that overtook each other, by sequence and 128 s", async () => {
      await watch({ maxSilenceMs: 1_000_000 });
      const { token } = await registered(maxAge(3600));
      for (const [sequence, value] of [
        [12, "new"],
        [11, "old"],
        [13, "newer"],
      ] as const) {
        const messageId = notify(token, sequence, value);
        expect(await sensor.next()).to.include({ type: "ack", messageId });
      }
      deps.clock.advance(128_001);
      notify(token, 5, "much later");
      await sensor.next();
      expect(deps.intake.texts).to.deep.equal(["first", "new", "newer", "much later"]);
      expect(dropped()).to.deep.equal({ stale: 1 });
    });

    it("takes Non-confirmable notifications, their copies once", async () => {
      await watch();
      const { token } = await registered();
      const messageId = notify(token, 11, "x", { type: "non" });
      sensor.send({ type: "non", code: "2.05", messageId, token, options: [observe(11)], payload: text("x") });
      await settled();
      expect(deps.intake.texts).to.deep.equal(["first", "x"]);
    });

    it("resets what it did not ask for", async () => {
      await watch();
      await registered();
      const unknown = notify(Buffer.from("who?"), 11, "x");
      expect(await sensor.next()).to.include({ type: "rst", messageId: unknown });
      sensor.send({ code: "0.01", messageId: 3 });
      expect(await sensor.next()).to.include({ type: "rst", messageId: 3 });
      sensor.raw(Buffer.from("4902000401020304050607080900", "hex"));
      expect(await sensor.next()).to.include({ type: "rst", messageId: 4 });
      sensor.empty("ack", 5);
      sensor.empty("rst", 6);
      await settled();
      expect(dropped()).to.deep.equal({ "unknown-token": 1, malformed: 1 });
      expect(deps.intake.texts).to.deep.equal(["first"]);
    });

    it("resets a notification with a critical option that it does not know", async () => {
      await watch();
      const { token } = await registered();
      const messageId = notify(token, 11, "x", { options: [observe(11), { number: 9, value: text("o") }] });
      expect(await sensor.next()).to.include({ type: "rst", messageId });
      expect(dropped()).to.deep.equal({ "bad-option": 1 });
    });

    it("listens to nobody but its sensor", async () => {
      await watch();
      const { token } = await registered();
      const stranger = await Peer.open();
      try {
        stranger.aim(sensor.lastFromPort);
        stranger.send({ code: "2.05", messageId: 1, token, options: [observe(11)], payload: text("forged") });
        await settled();
        await settled();
        expect(deps.intake.texts).to.deep.equal(["first"]);
      } finally {
        await stranger.close();
      }
    });

    it("registers again with the same token when Max-Age passes in silence, soon where Max-Age is short", async () => {
      await watch();
      const request = await registered(maxAge(2));
      deps.clock.advance(2999);
      await settled();
      expect(source.state().link).to.equal("up");
      deps.clock.advance(1);
      const again = await sensor.next("the renewal");
      expect(source.state()).to.deep.include({ link: "connecting", problem: "no notification for 3 s" });
      expect(again.token).to.deep.equal(request.token);
      expect(option(again, 6)).to.equal("");
      answer(again, "restarted", observe(1)); // the sensor counts from the start, and is believed
      await until(() => source.state().link === "up", "the link");
      notify(request.token, 2, "next");
      await sensor.next();
      expect(deps.intake.texts).to.deep.equal(["first", "restarted", "next"]);
    });

    it("puts the renewal off with each notification", async () => {
      await watch();
      const { token } = await registered(maxAge(20));
      for (let sequence = 11; sequence < 15; sequence += 1) {
        deps.clock.advance(19_000);
        notify(token, sequence, "x", { options: [observe(sequence), maxAge(20)] });
        expect((await sensor.next()).type).to.equal("ack");
      }
      expect(source.state()).to.include({ link: "up", accepted: 5 });
    });

    it("renews before a Max-Age that is too long to notice a restart", async () => {
      await watch({ maxSilenceMs: 100_000 });
      await registered(maxAge(2 ** 31));
      deps.clock.advance(100_000);
      expect(option(await sensor.next(), 6)).to.equal("");
      expect(source.state().link).to.equal("up");
    });

    it("does not take a notification that crosses the renewal for its answer", async () => {
      await watch();
      const { token } = await registered(maxAge(2));
      deps.clock.advance(3000);
      const again = await sensor.next("the renewal");
      notify(token, 11, "crossing");
      await sensor.next("its acknowledgement");
      answer(again, "answer", observe(12));
      await until(() => deps.intake.texts.length === 3, "both");
      expect(deps.intake.texts).to.deep.equal(["first", "crossing", "answer"]);
    });

    it("asks whenever Max-Age passes where the sensor does not offer observe", async () => {
      await watch();
      answer(await sensor.next(), "a", maxAge(10));
      await until(() => source.state().accepted === 1, "a");
      deps.clock.advance(15_000);
      answer(await sensor.next("the next request"), "b", maxAge(10));
      await until(() => source.state().accepted === 2, "b");
    });

    it("begins anew, from another port, after an error response, with growing waits", async () => {
      await watch();
      const request = await registered();
      const messageId = notify(request.token, 11, "gone", { code: "4.04", options: [] });
      expect(await sensor.next()).to.include({ type: "ack", messageId });
      await until(() => source.state().link === "down", "down");
      expect(source.state().problem).to.equal("the sensor answers 4.04");
      deps.clock.advance(1000);
      const again = await sensor.next("the new registration");
      expect(again.token).not.to.deep.equal(request.token);
      sensor.empty("rst", again.messageId);
      await until(() => source.state().link === "down", "down again");
      deps.clock.advance(1499);
      expect(sensor.unread).to.equal(0);
      deps.clock.advance(1);
      answer(await sensor.next(), "back", observe(1));
      await until(() => source.state().link === "up", "up");
    });

    it("waits as long as a 5.03 asks", async () => {
      await watch();
      const { messageId, token } = await sensor.next();
      sensor.send({ type: "ack", code: "5.03", messageId, token, options: [maxAge(30)] });
      await until(() => source.state().link === "down", "down");
      deps.clock.advance(29_999);
      await new Promise((resolve) => setImmediate(resolve));
      expect(source.state().link).to.equal("down");
      deps.clock.advance(1);
      await sensor.next("the next try");
    });

    it("sends its request again, and gives up after four copies", async () => {
      await watch();
      const first = await sensor.next();
      for (let copy = 0; copy < 4; copy += 1) {
        deps.clock.advance(2500 * 2 ** copy);
        expect(await sensor.next(`copy ${copy}`)).to.deep.equal(first);
      }
      deps.clock.advance(2500 * 16 - 1);
      expect(source.state().link).to.equal("connecting");
      deps.clock.advance(1);
      expect(source.state()).to.deep.include({ link: "down", problem: "no answer" });
      deps.clock.advance(1000);
      expect((await sensor.next("a new registration")).token).not.to.deep.equal(first.token);
    });

    it("stays stopped when an answer comes while it waits for the disk", async () => {
      await watch({ observe: false, everyMs: 1000 });
      deps.intake.outcome = "later";
      answer(await sensor.next(), "first");
      await until(() => source.state().link === "up", "the link");
      deps.clock.advance(1000);
      const second = await sensor.next("the second poll");
      const stopped = source.stop();
      answer(second, "second");
      await settled();
      expect(source.state().link).to.equal("stopped");
      expect(deps.intake.texts).to.deep.equal(["first"]);
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      deps.clock.advance(20);
      await stopped;
      expect(source.state()).to.include({ link: "stopped", accepted: 1 });
    });

    it("deregisters when it stops", async () => {
      await watch();
      const { token } = await registered();
      const stopped = source.stop();
      const farewell = await sensor.next("the deregistration");
      expect(farewell.token).to.deep.equal(token);
      expect(option(farewell, 6)).to.equal("01");
      answer(farewell, "bye");
      await stopped;
      expect(source.state()).to.include({ link: "stopped", accepted: 1 });
    });
  });
});
