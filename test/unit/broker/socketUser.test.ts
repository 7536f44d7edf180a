import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer, connect as tlsConnect } from "node:tls";
import { expect } from "chai";
import { readOn, stopReading } from "../../../src/broker/socketUser.ts";
import { makeCertificate } from "../../helpers/certificate.ts";
import { until } from "../../helpers/wait.ts";

const readBytes = 64 * 1024;
/** More than the kernel takes for a socket that nobody reads. */
const total = 32 * 1024 * 1024;
const sent = Buffer.alloc(total);
for (let at = 0; at < total; at += 4) sent.writeUInt32LE(at, at);

type Portal = ReturnType<typeof createServer>;

async function certificate() {
  const folder = await mkdtemp(join(tmpdir(), "tidegate-"));
  try {
    const { cert, key } = await makeCertificate(folder);
    return { cert: await readFile(cert), key: await readFile(key) };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Both ends of a connection. */
async function ends(server: Portal, event: string, open: (port: number) => Socket) {
  const accepted = new Promise<Socket>((resolve) => server.once(event, resolve));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const far = open(typeof address === "object" && address !== null ? address.port : 0);
  const near = await accepted;
  server.close();
  return { near, far };
}

describe("a socket that is not to be read", () => {
  const plain = () => ends(createServer({ noDelay: true }), "connection", (port) => connect(port, "127.0.0.1"));
  const secured = async () => {
    const { cert, key } = await certificate();
    return ends(createTlsServer({ cert, key }), "secureConnection", (port) =>
      tlsConnect({ port, host: "127.0.0.1", rejectUnauthorized: false }),
    );
  };
  for (const { name, open, lies } of [
    { name: "TCP", open: plain, lies: 0 },
    { name: "TLS", open: secured, lies: readBytes }, // what was deciphered with the first
  ]) {
    it(`is stopped before it reads once more, again and again, and nothing is lost: ${name}`, async () => {
      const { near, far } = await open();
      const got: Buffer[] = [];
      let most = 0;
      near.on("data", (chunk: Buffer) => {
        got.push(chunk);
        if (got.length > 20) return;
        stopReading(near);
        setImmediate(() => {
          most = Math.max(most, near.readableLength);
          readOn(near);
        });
      });
      far.end(sent);
      await until("all of it has come", () => near.readableEnded);
      expect(most).to.be.at.most(lies);
      expect(Buffer.concat(got).equals(sent)).to.equal(true);
      near.destroy();
      far.destroy();
    });
  }
});
