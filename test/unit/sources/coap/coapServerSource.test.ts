import { expect } from "chai";
import { TidegateError } from "../../../../src/base/errors.ts";
import {
  type CoapServerOptions,
  type CoapServerSource,
  createCoapServerSource,
} from "../../../../src/sources/coap/coapServerSource.ts";
import { openUdp } from "../../../../src/sources/coap/udp.ts";
import { encodeBlock } from "../../../../src/wire/coap/block.ts";
import type { CoapMessage, CoapOption } from "../../../../src/wire/coap/message.ts";
import { encodeUint } from "../../../../src/wire/coap/options.ts";
import { makeDeps, maxAgeOf, option, Peer, path, until } from "./support.ts";

describe("coap-server source", () => {
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

  describe("readings", () => {
    it("takes POST and PUT on any path and answers 2.04 in the acknowledgement", async () => {
      for (const [messageId, code] of [
        [1, "0.02"],
        [2, "0.03"],
      ] as const) {
        const answer = await peer.ask({ code, messageId, options: path("north", "t"), payload: Buffer.from("21") });
        expect(answer).to.include({ type: "ack", code: "2.04", messageId });
        expect(answer.token.toString("hex")).to.equal("aa");
      }
      expect(deps.intake.readings).to.have.length(2);
      expect(deps.intake.readings[0]).to.deep.include({
        source: "field",
        contentFormat: undefined,
        variables: { path: "north/t" },
      });
      expect(source.state()).to.deep.include({ link: "up", accepted: 2, type: "coap-server" });
      expect(deps.meter.expose()).to.include('tidegate_source_accepted_total{source="field"} 2');
      expect(deps.meter.expose()).to.include('tidegate_source_up{source="field"} 1');
    });

    it("makes topic levels of path segments, whatever they hold", async () => {
      await peer.ask({ options: path("a/b", "+", "", "#") });
      await peer.ask({ messageId: 2, options: [] });
      expect(deps.intake.readings.map(({ variables }) => variables?.["path"])).to.deep.equal(["a_b/_/_/_", "_"]);
    });

    it("hands the Content-Format on", async () => {
      await peer.ask({ options: [{ number: 12, value: encodeUint(60) }], payload: Buffer.from([0xa0]) });
      expect(deps.intake.readings[0]?.contentFormat).to.equal(60);
    });

    it("answers a Non-confirmable request with a Non-confirmable response", async () => {
      const answer = await peer.ask({ type: "non", messageId: 9 });
      expect(answer).to.include({ type: "non", code: "2.04" });
      expect(answer.token.toString("hex")).to.equal("aa");
    });

    it("says nothing where No-Response asks for it, but acknowledges", async () => {
      const quiet = { number: 258, value: Buffer.from([2]) };
      expect(await peer.ask({ messageId: 3, options: [quiet] })).to.include({ type: "ack", code: "0.00" });
      peer.send({ type: "non", messageId: 4, options: [quiet] });
      await settled();
      expect(deps.intake.readings).to.have.length(2);
    });

    it("waits for the disk", async () => {
      deps.intake.outcome = "later";
      peer.send({ payload: Buffer.from("x") });
      await until(() => deps.intake.waiting.length === 1, "the reading");
      await settled();
      expect(source.state().accepted).to.equal(0);
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      expect(await peer.next()).to.include({ type: "ack", code: "2.04", messageId: 1 });
    });
  });

  describe("refusals", () => {
    it("asks to come back later when the store is full or failed", async () => {
      for (const [messageId, reason] of [
        [1, "full"],
        [2, "failed"],
      ] as const) {
        deps.intake.outcome = { kind: "refused", reason };
        const answer = await peer.ask({ messageId });
        expect(answer.code).to.equal("5.03");
        expect(maxAgeOf(answer)).to.be.within(5, 30);
      }
      expect(dropped()).to.deep.equal({ full: 1, failed: 1 });
      expect(source.state().accepted).to.equal(0);
    });

    it("answers 4.00 to what cannot be decoded and to a topic that cannot be", async () => {
      deps.intake.outcome = { kind: "undecodable", why: "offset 3: /etc/secret" };
      const answer = await peer.ask({});
      expect(answer.code).to.equal("4.00");
      expect(answer.payload.toString()).to.equal("payload not understood");
      deps.intake.outcome = { kind: "refused", reason: "invalid" };
      expect((await peer.ask({ messageId: 2 })).code).to.equal("4.00");
      deps.intake.outcome = { kind: "undecodable", why: "unsupported Content-Format 99" };
      expect((await peer.ask({ messageId: 3 })).code).to.equal("4.15");
      expect(dropped()).to.deep.equal({ undecodable: 2, invalid: 1 });
    });

    it("survives an intake that throws, without telling what it threw", async () => {
      deps.intake.outcome = "throw";
      const answer = await peer.ask({});
      expect([answer.code, answer.payload.toString()]).to.deep.equal(["5.00", ""]);
      expect(dropped()).to.deep.equal({ internal: 1 });
    });

    it("bounds the readings that wait", async () => {
      await peer.close();
      await source.stop();
      await serve({ maxPending: 2 });
      deps.intake.outcome = "later";
      for (const messageId of [1, 2]) peer.send({ messageId });
      await until(() => deps.intake.waiting.length === 2, "two readings");
      const answer = await peer.ask({ messageId: 3 });
      expect([answer.code, answer.messageId]).to.deep.equal(["5.03", 3]);
      expect(maxAgeOf(answer)).to.be.within(5, 30);
      expect(dropped()).to.deep.equal({ busy: 1 });
    });

    it("refuses other methods, proxying, and critical options that it does not know", async () => {
      const codes: string[] = [];
      const requests: Array<Partial<CoapMessage>> = [
        { code: "0.01", options: path("t") },
        { code: "0.04" },
        { code: "0.05" },
        { code: "0.31" },
        { options: [{ number: 35, value: Buffer.from("coap://x/") }] },
        { options: [{ number: 39, value: Buffer.from("coap") }] },
        { options: [{ number: 9, value: Buffer.from("o") }] },
        { options: [{ number: 2051, value: Buffer.alloc(0) }] },
        { options: [{ number: 1, value: Buffer.alloc(0) }] },
        { options: [{ number: 27, value: Buffer.alloc(4) }] },
        { options: [block1(0, false), block1(0, false)] },
        { options: [{ number: 11, value: Buffer.from([0xff]) }] },
        { options: path(...Array.from({ length: 17 }, () => "a")) },
      ];
      for (const [at, request] of requests.entries()) codes.push((await peer.ask({ messageId: at, ...request })).code);
      expect(codes).to.deep.equal([
        "4.05",
        "4.05",
        "4.05",
        "4.05",
        "5.05",
        "5.05",
        "4.02",
        "4.02",
        "4.02",
        "4.02",
        "4.02",
        "4.02",
        "4.00",
      ]);
      expect(deps.intake.readings).to.have.length(0);
    });

    it("ignores elective options that it does not know", async () => {
      expect((await peer.ask({ options: [{ number: 2052, value: Buffer.from("x") }] })).code).to.equal("2.04");
    });

    it("rejects a Non-confirmable request with a wrong critical option in silence", async () => {
      peer.send({ type: "non", options: [{ number: 9, value: Buffer.from("o") }] });
      await settled();
      expect(dropped()).to.deep.equal({ "bad-option": 1 });
    });

    it("lists what is there at /.well-known/core, in blocks where asked", async () => {
      const core = path(".well-known", "core");
      const whole = await peer.ask({ code: "0.01", options: core });
      expect([whole.code, option(whole, 12)]).to.deep.equal(["2.05", "28"]);
      expect(whole.payload.toString()).to.match(/^<\/>;/);
      const parts: string[] = [];
      for (let num = 0; ; num += 1) {
        const block2 = { number: 23, value: encodeBlock({ num, more: false, szx: 0 }) };
        const part = await peer.ask({ code: "0.01", messageId: 10 + num, options: [...core, block2] });
        parts.push(part.payload.toString());
        if ((Number.parseInt(option(part, 23) ?? "0", 16) & 8) === 0) break;
      }
      expect(parts.join("")).to.equal(whole.payload.toString());
      expect(
        (await peer.ask({ code: "0.01", messageId: 50, options: [...core, { number: 17, value: encodeUint(50) }] }))
          .code,
      ).to.equal("4.06");
      expect((await peer.ask({ code: "0.02", messageId: 51, options: core })).code).to.equal("4.05");
    });
  });

  describe("life", () => {
    it("refuses to start on a port in use, with TG_LISTEN", async () => {
      const second = createCoapServerSource(
        { name: "two", listen: { host: "127.0.0.1", port: source.address().port } },
        deps,
      );
      const error = await second.start().then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).to.be.instanceOf(TidegateError);
      expect(error).to.include({ code: "TG_LISTEN" });
      expect((error as Error).message).to.match(/two.*coap:\/\/127\.0\.0\.1:\d+.*EADDRINUSE/);
      expect(second.state().link).to.equal("down");
    });

    it("opens its socket anew, on the same port, when that fails", async () => {
      let failing = false;
      let fail = (_error: Error): void => {};
      const open: typeof openUdp = (how, handlers) => {
        if (failing) return Promise.reject(new Error("no buffers"));
        fail = (error) => handlers.onError(error);
        return openUdp(how, handlers);
      };
      const own = makeDeps();
      const fragile = createCoapServerSource({ name: "f", listen: { host: "127.0.0.1", port: 0 } }, { ...own, open });
      await fragile.start();
      const { port } = fragile.address();
      const client = await Peer.open(port);
      extra.push(client);
      fail(Object.assign(new Error("send ENETUNREACH"), { code: "ENETUNREACH" }));
      expect(fragile.state().link).to.equal("up");
      failing = true;
      fail(new Error("the driver is gone"));
      expect(fragile.state()).to.deep.include({ link: "down", problem: "the driver is gone" });
      await until(() => own.clock.timers === 1, "the wait");
      own.clock.advance(1000);
      await until(() => fragile.state().problem?.includes("no buffers") === true, "the second failure");
      failing = false;
      await until(() => own.clock.timers === 1, "the longer wait");
      own.clock.advance(1500);
      await until(() => fragile.state().link === "up", "the new socket");
      expect(fragile.address().port).to.equal(port);
      expect((await client.ask({})).code).to.equal("2.04");
      await fragile.stop();
    });

    it("answers what is on its way to the disk before it stops, and takes nothing new", async () => {
      deps.intake.outcome = "later";
      peer.send({ messageId: 5 });
      await until(() => deps.intake.waiting.length === 1, "the reading");
      const stopped = source.stop();
      peer.send({ messageId: 6 });
      deps.intake.waiting[0]?.({ kind: "durable", value: 1 });
      deps.clock.advance(20);
      await stopped;
      expect(await peer.next()).to.include({ type: "ack", code: "2.04", messageId: 5 });
      expect(deps.intake.readings).to.have.length(1);
      expect(source.state().link).to.equal("stopped");
      expect(deps.clock.timers).to.equal(0);
    });
  });
});
