import { expect } from "chai";
import fc from "fast-check";
import { generate, parser as makeParser, type Packet } from "mqtt-packet";
import { connectPacket, Rig, type Version, versions } from "../helpers/brokerRig.ts";
import { frame, opcode, RawWebSocket } from "../helpers/rawWebSocket.ts";
import { until } from "../helpers/wait.ts";

// Section 6 of both versions: "Using WebSocket as a network transport". The clauses have the same numbers.

for (const version of versions) {
  describe(`WebSocket, MQTT ${version}`, () => {
    let rig: Rig;
    let port: number;
    const clients: RawWebSocket[] = [];

    beforeEach(async () => {
      rig = new Rig();
      ({ port } = await rig.broker.listen({ url: "ws://127.0.0.1:0/mqtt" }));
    });
    afterEach(async () => {
      for (const client of clients.splice(0)) client.drop();
      await rig.close();
    });

    const bytesOf = (packet: Packet): Buffer => generate(packet, { protocolVersion: version as Version });
    const hello = (clientId = "c"): Buffer => bytesOf(connectPacket(version, clientId));
    const publish = (payload: string): Buffer =>
      bytesOf({ cmd: "publish", topic: "t", payload, qos: 0, retain: false, dup: false });
    const subscribe = bytesOf({
      cmd: "subscribe",
      messageId: 9,
      subscriptions: [{ topic: "t", qos: 0, nl: false, rap: false, rh: 0 }],
    });

    async function opened(): Promise<RawWebSocket> {
      const client = await RawWebSocket.open(port);
      clients.push(client);
      return client;
    }
    function asked(headers: Record<string, string | undefined>, path?: string): RawWebSocket {
      const client = RawWebSocket.request(port, path, headers);
      clients.push(client);
      return client;
    }

    /** What the client gets, frame by frame, and the packets in it. */
    function reader(client: RawWebSocket): { packets: Packet[]; opcodes: number[]; read: () => void } {
      const packets: Packet[] = [];
      const opcodes: number[] = [];
      const parse = makeParser({ protocolVersion: version });
      parse.on("packet", (packet) => packets.push(packet));
      const read = (): void => {
        for (const { opcode: code, payload } of client.frames()) {
          opcodes.push(code);
          if (code === opcode.binary) parse.parse(payload);
        }
      };
      return { packets, opcodes, read };
    }
    async function got(client: ReturnType<typeof reader>, ...cmds: string[]): Promise<void> {
      await until(cmds.join(", "), () => {
        client.read();
        return client.packets.length >= cmds.length;
      });
      expect(client.packets.splice(0).map(({ cmd }) => cmd)).to.deep.equal(cmds);
    }

    it("[MQTT-6.0.0-3] [MQTT-6.0.0-4] a client offers mqtt among others; that is the one that is answered", async () => {
      for (const [offered, answered] of [
        ["mqtt", "mqtt"],
        ["chat, mqtt", "mqtt"],
        ["mqttv3.1, mqtt", "mqtt"],
        ["mqttv3.1", "mqttv3.1"],
      ] as const) {
        const client = asked({ "Sec-WebSocket-Protocol": offered });
        expect(await client.status(), offered).to.equal(101);
        expect(/^sec-websocket-protocol: (.*)$/im.exec(client.answer ?? "")?.[1]).to.equal(answered);
      }
    });

    it("[MQTT-6.0.0-3] who does not offer mqtt is refused", async () => {
      for (const offered of [undefined, "chat", "MQTT", "mqtt5", ""]) {
        const client = asked({ "Sec-WebSocket-Protocol": offered });
        expect(await client.status(), `${offered}`).to.equal(400);
        await until("it is closed", () => client.socket.destroyed);
      }
    });

    it("[MQTT-6.0.0-1] text closes the connection, and the will goes out", async () => {
      const watcher = await rig.client(version, "watcher");
      await watcher.subscribe("will");
      for (const [what, bytes] of [
        ["a text frame", frame(opcode.text, Buffer.from("hello"))],
        ["an empty text frame", frame(opcode.text, Buffer.alloc(0))],
        ["MQTT in a text frame", frame(opcode.text, publish("x"))],
        [
          "a text message in two frames",
          Buffer.concat([frame(opcode.text, Buffer.of(65), { fin: false }), frame(opcode.continuation, Buffer.of(66))]),
        ],
      ] as const) {
        const client = await opened();
        const will = { topic: "will", payload: Buffer.from(what), qos: 0, retain: false } as const;
        client.socket.write(frame(opcode.binary, bytesOf(connectPacket(version, "c", { will }))));
        const read = reader(client);
        await got(read, "connack");
        client.socket.write(bytes);
        expect((await watcher.next("publish")).payload.toString()).to.equal(what);
        await until("a close frame", () => {
          read.read();
          return read.opcodes.includes(opcode.close);
        });
        await until("it is closed", () => client.socket.destroyed);
      }
    });

    it("[MQTT-6.0.0-1] we send binary frames only", async () => {
      const client = await opened();
      client.socket.write(frame(opcode.binary, Buffer.concat([hello(), subscribe, publish("x")])));
      const read = reader(client);
      await got(read, "connack", "suback", "publish");
      expect([...new Set(read.opcodes)]).to.deep.equal([opcode.binary]);
    });

    it("[MQTT-6.0.0-2] several packets in one frame, a packet in many, frames and fragments cut anywhere", async () => {
      const long = "long".repeat(50);
      const whole = Buffer.concat([hello(), subscribe, publish("one"), publish(long), publish("")]);
      const cuts: Array<[what: string, bytes: Buffer]> = [
        ["all in one frame", frame(opcode.binary, whole)],
        ["a frame a byte", Buffer.concat([...whole].map((byte) => frame(opcode.binary, Buffer.of(byte))))],
        [
          "a fragment a byte",
          Buffer.concat(
            [...whole].map((byte, at) => frame(at === 0 ? 2 : 0, Buffer.of(byte), { fin: at === whole.length - 1 })),
          ),
        ],
        [
          "empty frames between",
          Buffer.concat([...whole].flatMap((byte) => [frame(2, Buffer.alloc(0)), frame(2, Buffer.of(byte))])),
        ],
        [
          "pings between",
          Buffer.concat(
            [...whole].flatMap((byte) => [frame(opcode.ping, Buffer.alloc(0)), frame(2, Buffer.of(byte))]).slice(-80),
          ),
        ],
      ];
      // The last one only with the tail of the bytes cut: what came before it in one frame.
      const pinged = Buffer.concat([frame(2, whole.subarray(0, whole.length - 40)), cuts[4]?.[1] ?? Buffer.alloc(0)]);
      cuts[4] = ["pings between", pinged];
      for (const [what, bytes] of cuts) {
        const client = await opened();
        client.socket.write(bytes);
        const read = reader(client);
        await until(what, () => {
          read.read();
          return read.packets.length === 5;
        });
        expect(
          read.packets.map((packet) => (packet.cmd === "publish" ? packet.payload.toString() : packet.cmd)),
          what,
        ).to.deep.equal(["connack", "suback", "one", long, ""]);
        client.drop();
        await until("it is gone", () => rig.broker.stats().connections === 0);
      }
    });

    it("[MQTT-6.0.0-2] property: any cut into frames, and of the bytes of frames, gives the same packets", async () => {
      const whole = Buffer.concat([hello(), subscribe, publish("one"), publish("two"), publish("three")]);
      const cut = fc.array(fc.nat(whole.length), { maxLength: 12 });
      await fc.assert(
        fc.asyncProperty(cut, cut, async (frameCuts, byteCuts) => {
          const frames = Buffer.concat(cutAt(whole, frameCuts).map((part) => frame(opcode.binary, part)));
          const client = await opened();
          const places = byteCuts.map((at) => Math.floor((at / whole.length) * frames.length));
          for (const part of cutAt(frames, places)) await new Promise((resolve) => client.socket.write(part, resolve));
          await got(reader(client), "connack", "suback", "publish", "publish", "publish");
          client.drop();
        }),
        { numRuns: 40 },
      );
    });

    it("a ping is answered with what it brought; it is no packet, and no sign of life of MQTT", async () => {
      const client = await opened();
      client.socket.write(frame(opcode.binary, bytesOf(connectPacket(version, "c", { keepalive: 10 }))));
      await got(reader(client), "connack");
      client.socket.write(frame(opcode.ping, Buffer.from("are you there")));
      await until("a pong", () =>
        client
          .frames()
          .some(({ opcode: code, payload }) => code === opcode.pong && payload.toString() === "are you there"),
      );
      rig.advance(8000);
      client.socket.write(frame(opcode.ping, Buffer.alloc(0)));
      await until("a pong", () => client.frames().some(({ opcode: code }) => code === opcode.pong));
      rig.advance(8000); // 16 s since the last packet
      await until("it is ended", () => rig.broker.stats().connections === 0);
    });

    it("DISCONNECT, or a close frame: a close frame is answered and the connection ends", async () => {
      for (const bytes of [
        frame(opcode.binary, bytesOf({ cmd: "disconnect" })),
        frame(opcode.close, Buffer.of(3, 232)),
      ]) {
        const client = await opened();
        client.socket.write(frame(opcode.binary, hello()));
        const read = reader(client);
        await got(read, "connack");
        client.socket.write(bytes);
        await until("a close frame", () => {
          read.read();
          return read.opcodes.includes(opcode.close);
        });
        client.socket.write(frame(opcode.close, Buffer.of(3, 232)));
        await until("it is closed", () => client.socket.destroyed);
        await until("it is gone", () => rig.broker.stats().connections === 0);
      }
    });
  });
}

function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [...places].sort((a, b) => a - b);
  return [...sorted, bytes.length].map((end, index) => bytes.subarray(sorted[index - 1] ?? 0, end));
}
