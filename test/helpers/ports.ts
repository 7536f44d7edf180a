import { createSocket } from "node:dgram";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";

/** Ports of 127.0.0.1 that stay free until a test starts something there, and while what listened there is restarted. */

const blockPorts = 64;
const lowest = 10_240;
const beyond = 20_000; // from here on the demo looks for its own: firmware-sim/demo/ports.ts

/** Where the kernel begins to choose ports for who asks for none: what lies below is nobody's by chance. Undefined: not known here. */
const chosenFrom = ((): number | undefined => {
  try {
    return Number.parseInt(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "latin1"), 10);
  } catch {
    return undefined; // only Linux says so
  }
})();

const blocks = Math.max(0, Math.floor((Math.min(chosenFrom ?? 0, beyond) - lowest) / blockPorts));
/** The next one of this process's block, and the end of it. No port is given twice. */
let next = 0;
let end = 0;

/**
 * Makes a block of ports ours: other test processes look at the same name, an abstract socket, which is gone with the process that holds it, however it ends.
 * A port that was only seen to be free and was then closed is soon another's: any connection of anybody's takes one.
 */
async function takeBlock(): Promise<void> {
  for (let tries = 0, block = Math.floor(Math.random() * blocks); tries < blocks; tries += 1, block += 1) {
    const first = lowest + (block % blocks) * blockPorts;
    const claim = createServer().unref();
    const claimed = await new Promise<boolean>((resolve) => {
      claim.once("error", () => resolve(false));
      claim.listen(`\0tidegate-test-ports-${first}`, () => resolve(true));
    });
    if (!claimed) continue;
    [next, end] = [first, first + blockPorts];
    return;
  }
  throw new Error("all blocks of ports are in use by other tests");
}

/** Of our own, one that no other program has now. */
async function ownPort(isFree: (port: number) => Promise<boolean>): Promise<number> {
  for (;;) {
    while (next === end) await takeBlock();
    const port = next++;
    if (await isFree(port)) return port;
  }
}

async function tcpIsFree(port: number): Promise<boolean> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => resolve(true));
  });
  if (listens) await new Promise((resolve) => server.close(resolve));
  return listens;
}

async function udpIsFree(port: number): Promise<boolean> {
  const socket = createSocket("udp4");
  const bound = await new Promise<boolean>((resolve) => {
    socket.once("error", () => resolve(false));
    socket.bind(port, "127.0.0.1", () => resolve(true));
  });
  await new Promise<void>((resolve) => socket.close(resolve));
  return bound;
}

/** Free TCP ports of 127.0.0.1, all different. */
export async function freePorts(count: number): Promise<number[]> {
  if (blocks === 0) return someFreePorts(count);
  const ports: number[] = [];
  while (ports.length < count) ports.push(await ownPort(tcpIsFree));
  return ports;
}

/** A free UDP port of 127.0.0.1. */
export async function freeUdpPort(): Promise<number> {
  if (blocks > 0) return ownPort(udpIsFree);
  const socket = createSocket("udp4");
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { port } = socket.address();
  await new Promise<void>((resolve) => socket.close(resolve));
  return port;
}

/** Where nothing better is to be had: all are held until all are known, so that they differ. */
async function someFreePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ports.push((server.address() as AddressInfo).port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
