import { expect } from "chai";
import { byte, connect, P, type Property, packet, properties } from "./frames.ts";
import { fault, joined, open, refused, withRig } from "./support.ts";

const auth = (code: number, list: readonly Property[] = []): Buffer => packet(0xf0, byte(code), properties(list));

describe("MQTT 5 AUTH from a client that named no method", () => {
  const forms: ReadonlyArray<readonly [string, Buffer]> = [
    ["nothing in it", packet(0xf0)],
    ["Continue authentication", auth(0x18, [[P.authMethod, "SCRAM-SHA-256"]])],
    [
      "Re-authenticate",
      auth(0x19, [
        [P.authMethod, "SCRAM-SHA-256"],
        [P.authData, Buffer.from("n,,n=u,r=r")],
      ]),
    ],
  ];
  for (const [name, bytes] of forms) {
    it(
      `[MQTT-4.12.0-7] [MQTT-4.12.0-6] ${name}: a Protocol Error, and no AUTH in answer`,
      withRig((rig) => fault(rig, bytes, [0x82])),
    );
  }
  it(
    "[MQTT-3.15.2-1] a reason code that AUTH has not is a fault",
    withRig((rig) => fault(rig, auth(0x01), [0x81, 0x82])),
  );
  it(
    "[MQTT-3.15.1-1] other header flags are malformed",
    withRig(async (rig) => {
      for (let flags = 1; flags < 16; flags += 1) await fault(rig, packet(0xf0 | flags), [0x81]);
    }),
  );
  it(
    "[2.1.4] bytes behind its properties are malformed",
    withRig((rig) => fault(rig, packet(0xf0, byte(0x18), byte(0), byte(0)), [0x81])),
  );
  it(
    "[MQTT-4.12.0-6] [MQTT-3.1.4-6] right behind its CONNECT as well",
    withRig(async (rig) => {
      const peer = open(rig);
      peer.send(connect(), auth(0x18));
      await peer.gone();
      expect(await peer.says()).to.deep.equal(["CONNACK 00", "DISCONNECT 82"]);
    }),
  );
  it(
    "[3.1.2.11.10] Authentication Data without a method is a Protocol Error",
    withRig((rig) => refused(rig, connect({ properties: [[P.authData, Buffer.from("x")]] }), [0x82])),
  );
  it(
    "[3.1.2.11.9] Authentication Method twice is a Protocol Error",
    withRig((rig) =>
      refused(
        rig,
        connect({
          properties: [
            [P.authMethod, "a"],
            [P.authMethod, "a"],
          ],
        }),
        [0x82],
      ),
    ),
  );
  it(
    "[MQTT-4.12.0-6] who connects by user name gets no AUTH",
    withRig(
      async (rig) => {
        const peer = await joined(rig, "c", { user: "u", password: "p" });
        expect(await peer.says()).to.deep.equal([]);
      },
      { anonymous: false, authenticate: () => true },
    ),
  );
});
