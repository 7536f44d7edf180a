import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConnectionOptions, connect as connectTls, type TLSSocket } from "node:tls";
import { expect } from "chai";
import { connectAsync } from "mqtt";
import type { TidegateError } from "../../../src/base/errors.ts";
import { silentLog } from "../../../src/base/log.ts";
import { certificateName } from "../../../src/broker/certificates.ts";
import type { Broker, ListenerTls } from "../../../src/broker/options.ts";
import { ManualClock } from "../../helpers/brokerRig.ts";
import { openBroker } from "../../helpers/openBroker.ts";
import { OpenDoors } from "../../helpers/openDoors.ts";
import { type Issued, TestCa } from "../../helpers/testCa.ts";
import { until } from "../../helpers/wait.ts";

interface Made {
  readonly ca: TestCa;
  readonly other: TestCa;
  readonly server: Issued;
  readonly client: Issued;
  readonly stranger: Issued;
}

const thrownBy = (act: () => void): unknown => {
  try {
    act();
    return undefined;
  } catch (error) {
    return error;
  }
};

describe("TLS doors", () => {
  let made: Made | undefined;
  let doors: OpenDoors;
  let sockets: Socket[];
  /** What a test opened beside `doors`: a failed one must not keep the process. */
  const opened: Array<{ close(): Promise<void> }> = [];
  function brokerOf(options: Parameters<typeof openBroker>[0] = {}): Broker {
    const { broker } = openBroker(options);
    opened.push(broker);
    return broker;
  }

  before(() => {
    const [ca, other] = [TestCa.make(), TestCa.make()];
    if (ca === undefined || other === undefined) return;
    const [server, client, stranger] = [ca.issue("/CN=server"), ca.issue("/CN=pump-7"), other.issue("/CN=pump-7")];
    made = { ca, other, server, client, stranger };
  });
  after(() => {
    made?.ca.remove();
    made?.other.remove();
  });
  beforeEach(() => {
    doors = new OpenDoors();
    sockets = [];
  });
  afterEach(async () => {
    for (const socket of sockets) socket.destroy();
    await doors.close();
    for (const each of opened.splice(0)) await each.close();
  });

  /** The test, where there is openssl. */
  const having = (test: (made: Made) => Promise<void>) => async (): Promise<void> => {
    if (made !== undefined) await test(made);
  };
  const tlsOf = ({ ca, server }: Made, clientCert: ListenerTls["clientCert"], more: Partial<ListenerTls> = {}) => ({
    ...{ cert: server.cert, key: server.key, ca: ca.ca, clientCert },
    ...more,
  });
  function dial(port: number, options: ConnectionOptions = {}): TLSSocket {
    const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options });
    socket.on("error", () => {});
    sockets.push(socket);
    return socket;
  }
  async function namedBy(port: number, servername: string | undefined): Promise<string | undefined> {
    const socket = dial(port, servername === undefined ? {} : { servername });
    await until("a certificate", () => Object.keys(socket.getPeerCertificate()).length > 0 || socket.destroyed);
    const { CN } = socket.getPeerCertificate().subject;
    socket.destroy();
    return CN;
  }

  describe("certificates of clients", () => {
    const outcomes = [
      ["none", "no certificate", true],
      ["none", "one of ours", true],
      ["none", "one of another authority", true],
      ["optional", "no certificate", true],
      ["optional", "one of ours", true],
      ["optional", "one of another authority", false],
      ["required", "no certificate", false],
      ["required", "one of ours", true],
      ["required", "one of another authority", false],
    ] as const;
    for (const [clientCert, shown, enters] of outcomes) {
      for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
        it(
          `${clientCert}, ${shown}: ${enters ? "comes in" : "stays out, counted"} (${maxVersion})`,
          having(async (given) => {
            const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, clientCert) });
            const { client, stranger } = given;
            const issued = shown === "no certificate" ? {} : shown === "one of ours" ? client : stranger;
            const socket = dial(port, { ...issued, maxVersion });
            await until("decided", () => doors.entered.length > 0 || doors.refused("tls") > 0);
            expect(doors.entered.length).to.equal(enters ? 1 : 0);
            expect(doors.refused("tls")).to.equal(enters ? 0 : 1);
            if (!enters) await until("it was ended", () => socket.destroyed);
            const named = clientCert !== "none" && shown === "one of ours";
            if (enters)
              expect(doors.entered[0]?.peer).to.include({
                certified: named,
                certificateName: named ? "pump-7" : undefined,
              });
          }),
        );
      }
    }

    it(
      "TLS 1.1 is too old",
      having(async (given) => {
        const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none") });
        dial(port, { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" });
        await until("refused", () => doors.refused("tls") === 1);
      }),
    );

    it(
      "who comes back with a session ticket is still who it was",
      having(async (given) => {
        const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "required") });
        let session: Buffer | undefined;
        const one = dial(port, given.client).on("session", (ticket) => (session = ticket));
        await until("a ticket", () => session);
        one.destroy();
        const again = dial(port, { ...given.client, ...(session === undefined ? {} : { session }) });
        await until("both were in", () => doors.entered.length === 2);
        expect(again.isSessionReused()).to.equal(true);
        expect(doors.entered[1]?.peer).to.include({ certified: true, certificateName: "pump-7" });
      }),
    );

    it(
      "a name that no user can have is none, though the certificate is good",
      having(async (given) => {
        const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "required") });
        for (const subject of ["/CN=one/CN=two", "/CN=bell\u0007", "/O=nobody"]) {
          dial(port, given.ca.issue(subject));
          const { peer } = await until(subject, () => doors.entered.pop());
          expect(peer, subject).to.include({ certified: true, certificateName: undefined });
        }
        dial(port, given.ca.issue("/CN=Pümpe 7 \\+#"));
        expect((await until("in", () => doors.entered.pop())).peer.certificateName).to.equal("Pümpe 7 +#");
      }),
    );

    it("a name: one, not empty, without control characters, not endless", () => {
      expect(certificateName({ CN: "a" })).to.equal("a");
      for (const CN of ["", "a\u0000b", "a\nCN=admin", "\u0085", ["a", "b"], undefined, "x".repeat(257)])
        expect(certificateName({ CN }), JSON.stringify(CN)).to.equal(undefined);
      expect(certificateName(undefined)).to.equal(undefined);
    });

    it(
      "clientCert without an authority is refused, not left to every authority of the world",
      having(async (given) => {
        const tls = tlsOf(given, "required", { ca: undefined });
        const error = await doors.open({ url: "mqtts://127.0.0.1:0", tls }).catch((caught: TidegateError) => caught);
        expect(error).to.include({ code: "TG_LISTEN" });
      }),
    );
  });

  describe("certificates by name (SNI)", () => {
    it(
      "the name's own, a wildcard's for one label, else the listener's",
      having(async (given) => {
        const { ca } = given;
        const sni = { "a.example": ca.issue("/CN=for a"), "*.B.example": ca.issue("/CN=for any b") };
        const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none", { sni }) });
        expect(await namedBy(port, "a.example")).to.equal("for a");
        expect(await namedBy(port, "A.EXAMPLE")).to.equal("for a");
        expect(await namedBy(port, "x.b.example")).to.equal("for any b");
        for (const name of ["b.example", "x.y.b.example", "other", undefined])
          expect(await namedBy(port, name), `${name}`).to.equal("server");
      }),
    );

    it(
      "clients are checked with the same authority, whatever name they ask for",
      having(async (given) => {
        const sni = { "a.example": given.ca.issue("/CN=for a") };
        const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "required", { sni }) });
        dial(port, { ...given.stranger, servername: "a.example" });
        await until("refused", () => doors.refused("tls") === 1);
        dial(port, { ...given.client, servername: "a.example" });
        await until("in", () => doors.entered.length === 1);
      }),
    );

    it(
      "one that cannot be used is named",
      having(async (given) => {
        const sni = { "a.example": { cert: given.server.cert, key: given.client.key } };
        const tls = tlsOf(given, "none", { sni });
        const error = await doors.open({ url: "mqtts://127.0.0.1:0", tls }).catch((caught: TidegateError) => caught);
        expect(error).to.include({ code: "TG_LISTEN" }).and.have.property("message").that.contains("sni: a.example: ");
      }),
    );
  });

  describe("other certificates while it runs", () => {
    it(
      "hold for new connections; the others stay; unusable ones change nothing",
      having(async (given) => {
        const broker = brokerOf();
        const handle = await broker.listen({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none") });
        const known = { rejectUnauthorized: false, reconnectPeriod: 0 };
        const client = await connectAsync(handle.url, { ...known, clientId: "stays" });
        const next = given.ca.issue("/CN=next");
        handle.setTls(tlsOf(given, "none", next));
        expect(await namedBy(handle.port, undefined)).to.equal("next");
        for (const wrong of [
          { key: given.client.key },
          { cert: "no certificate" },
          { clientCert: "required" as const, ca: undefined },
        ]) {
          const error = thrownBy(() => handle.setTls(tlsOf(given, "none", wrong)));
          expect(error).to.include({ code: "TG_LISTEN" });
          expect(await namedBy(handle.port, undefined)).to.equal("next");
        }
        await client.publishAsync("t", "still here", { qos: 1 });
        expect([...broker.clients()].map(({ clientId }) => clientId)).to.deep.equal(["stays"]);
        await client.endAsync();
      }),
    );

    it(
      "another authority is asked at once, also of those who come with a ticket of before",
      having(async (given) => {
        const handle = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "required") });
        let session: Buffer | undefined;
        const one = dial(handle.port, given.client).on("session", (ticket) => (session = ticket));
        await until("a ticket", () => session);
        handle.setTls(tlsOf(given, "required", { ca: given.other.ca }));
        expect(one.destroyed).to.equal(false);
        dial(handle.port, { ...given.client, ...(session === undefined ? {} : { session }) });
        await until("it is refused", () => doors.refused("tls") === 1);
        dial(handle.port, given.stranger);
        await until("the other's client is in", () => doors.entered.length === 2);
      }),
    );

    it(
      "clientCert may change as well",
      having(async (given) => {
        const handle = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none") });
        handle.setTls(tlsOf(given, "required"));
        dial(handle.port);
        await until("refused", () => doors.refused("tls") === 1);
      }),
    );

    it(
      "not on a listener without TLS",
      having(async (given) => {
        const handle = await doors.open({ url: "mqtt://127.0.0.1:0" });
        expect(thrownBy(() => handle.setTls(tlsOf(given, "none")))).to.include({ code: "TG_LISTEN" });
      }),
    );
  });

  it(
    "says when a certificate has expired, ends soon, or is not valid yet",
    having(async (given) => {
      const warned: string[] = [];
      const log = { ...silentLog, warn: (_fields: object, line: string) => void warned.push(line) };
      const clock = new ManualClock();
      const at = new OpenDoors({ log, clock });
      opened.push(at);
      const tls = tlsOf(given, "none", { sni: { "a.example": given.ca.issue("/CN=short", "IP:127.0.0.1", 10) } });
      const now = Date.now(); // after the certificates were made
      const days = (count: number): number => now + count * 86_400_000;
      clock.wallMs = () => now;
      const handle = await at.open({ url: "mqtts://127.0.0.1:0", tls });
      expect(warned.splice(0))
        .to.have.length(1)
        .and.have.nested.property("[0]")
        .that.matches(/certificate for a.example expires in (9|10) days/);
      for (const [wallMs, words] of [
        [days(70), /^the certificate expires in (19|20) days/],
        [days(91), /^the certificate has expired/],
        [days(-1), /^the certificate is not valid before/],
      ] as const) {
        clock.wallMs = () => wallMs;
        handle.setTls(tlsOf(given, "none"));
        expect(warned).to.have.length(1);
        expect(warned.pop()).to.match(words);
      }
    }),
  );

  it(
    "a required certificate is who you are: no user name is needed, though anonymous is false",
    having(async (given) => {
      const broker = brokerOf({ anonymous: false });
      const { url } = await broker.listen({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "required") });
      const { cert, key } = given.client;
      const client = await connectAsync(url, { ca: given.ca.ca, cert, key, reconnectPeriod: 0 });
      await client.publishAsync("t", "x", { qos: 1 });
      await client.endAsync();
      const plain = await broker.listen({ url: "mqtt://127.0.0.1:0" });
      const stranger = await connectAsync(plain.url, { reconnectPeriod: 0 }).catch((caught: Error) => caught);
      expect(String(stranger)).to.match(/Not authorized/i);
    }),
  );

  it(
    "who has not ended the handshake counts as a connection, and leaves room when it goes",
    having(async (given) => {
      const broker = brokerOf({ limits: { maxConnectionsPerAddress: 2 } });
      const { port, url } = await broker.listen({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none") });
      const silent = (): Socket => {
        const socket = connectSocket(port, "127.0.0.1");
        socket.on("error", () => {});
        sockets.push(socket);
        return socket;
      };
      const kept = [silent(), silent()];
      await until("two are in", () => kept.every((socket) => socket.readyState === "open"));
      const third = silent();
      await until("the third is out", () => third.destroyed);
      for (const socket of kept) socket.destroy();
      for (let round = 0; round < 3; round += 1) {
        await until("a client gets in", async () => {
          const known = { ca: given.ca.ca, reconnectPeriod: 0 };
          const client = await connectAsync(url, known).catch(() => undefined);
          await client?.endAsync();
          return client !== undefined;
        });
      }
    }),
  );

  it(
    "closing does not wait for a handshake",
    having(async (given) => {
      const { port } = await doors.open({ url: "mqtts://127.0.0.1:0", tls: tlsOf(given, "none") });
      const socket = connectSocket(port, "127.0.0.1");
      socket.on("error", () => {});
      socket.write(Buffer.from([22, 3, 1])); // the first bytes of a handshake
      await until("it is in", () => socket.readyState === "open" && socket.bytesWritten === 3);
      await new Promise((resolve) => setTimeout(resolve, 50));
      const fromMs = performance.now();
      await doors.close();
      expect(performance.now() - fromMs).to.be.lessThan(2000);
      await until("it was ended", () => socket.destroyed);
      expect(doors.refused("tls")).to.equal(0);
    }),
  );

  it("rubbish is counted each time, and logged once in ten seconds for an address", async () => {
    const lines: string[] = [];
    const log = { ...silentLog, info: (_fields: object, line: string) => void lines.push(line) };
    const broker = brokerOf({ log });
    const { port } = await broker.listen({ url: "mqtt://127.0.0.1:0" });
    sockets = Array.from({ length: 20 }, () => connectSocket(port, "127.0.0.1"));
    for (const socket of sockets) {
      socket.on("error", () => {});
      socket.resume().write(Buffer.alloc(8));
    }
    await until("all are out", () => sockets.every((socket) => socket.destroyed));
    expect(lines.filter((line) => line.startsWith("TG_PROTOCOL"))).to.have.length(1);
  });

  it("a file that is no socket stays where it is", async () => {
    const folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    opened.push({ close: async () => rmSync(folder, { recursive: true, force: true }) });
    const path = join(folder, "precious.db");
    writeFileSync(path, "data");
    const error = await doors.open({ url: `unix://${path}` }).catch((caught: TidegateError) => caught);
    expect(error)
      .to.include({ code: "TG_LISTEN" })
      .and.have.property("message")
      .that.matches(/not a socket/);
    expect(readFileSync(path, "utf8")).to.equal("data");
  });
});
