/**
 * Ports that are free now and will still be free after something that had them went down for a while. So not the kernel's own choice
 * (port 0): those lie in the range of outgoing connections, and a client that keeps dialling a closed port of that range can even
 * connect to itself.
 */
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer } from "node:net";

const portMin = 20_000;
const portCount = 10_000; // the usual range of outgoing connections begins at 32768
const triesMax = 50;

async function tcpIsFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

async function udpIsFree(port: number): Promise<boolean> {
  const socket = createSocket("udp4");
  try {
    socket.bind(port, "127.0.0.1");
    await once(socket, "listening");
    return true;
  } catch {
    return false;
  } finally {
    socket.close();
  }
}

/** @throws Error when none was found */
export async function freePort(protocol: "tcp" | "udp"): Promise<number> {
  for (let tries = 0; tries < triesMax; tries += 1) {
    const port = portMin + Math.floor(Math.random() * portCount);
    if (await (protocol === "tcp" ? tcpIsFree(port) : udpIsFree(port))) return port;
  }
  throw new Error(`no free ${protocol} port between ${portMin} and ${portMin + portCount}`);
}
