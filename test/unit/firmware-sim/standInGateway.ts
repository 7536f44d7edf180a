/**
 * A gateway of the least possible size, as a process, so that the demo's own judgement can be tested: it takes what the demo's devices
 * send, keeps it in a file and forwards it. With LOSE=topic it acknowledges every fifth reading of that topic and throws it away; with
 * SWAP=topic it keeps some in the wrong order; with ALTER=topic it changes values. The demo must notice each.
 */

import { createSocket } from "node:dgram";
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { createServer, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { decode } from "cbor-x";
import { generate, parse } from "coap-packet";
import { connect } from "mqtt";
import mqttPacket, { type Packet } from "mqtt-packet";
import { SerialPort } from "serialport";
import { parse as parseYaml } from "yaml";
import { decodeReading, encodeDownlink, FrameReader, frameOf } from "../../../firmware-sim/codec/boiler.ts";

interface Config {
  gateway: { id: string };
  mqtt: { listeners: Array<{ url: string }> };
  http: { listen: string };
  sources: Array<{ name: string; path?: string; url?: string; listen?: string }>;
  uplinks: Array<{ url: string; clientId: string }>;
}

const configFile = process.argv.at(-1) ?? "";
const config = parseYaml(readFileSync(configFile, "utf8")) as Config;
const portOf = (url: string | undefined): number => Number(new URL(url ?? "x://h:0").port);
const source = (name: string): Config["sources"][number] | undefined =>
  config.sources.find((each) => each.name === name);
const { LOSE, SWAP, ALTER } = process.env;

// ---------------------------------------------------------------- store and uplink

const folder = join(dirname(configFile), "data");
mkdirSync(folder, { recursive: true });
const logFile = join(folder, "log");
const markFile = join(folder, "mark");
const stored = existsSync(logFile) ? readFileSync(logFile, "utf8").split("\n").slice(0, -1) : [];
let mark = existsSync(markFile) ? Number(readFileSync(markFile, "utf8")) : 0;
let sent = mark;
const taken = new Map<string, number>();
let swapped: string | undefined;

function store(line: string): void {
  appendFileSync(logFile, `${line}\n`);
  stored.push(line);
  pump();
}

function accept(topic: string, data: Record<string, unknown>): void {
  const count = (taken.get(topic) ?? 0) + 1;
  taken.set(topic, count);
  const fifth = count % 5 === 0;
  if (LOSE !== undefined && topic.startsWith(LOSE) && fifth) return;
  const value = ALTER !== undefined && topic.startsWith(ALTER) && fifth ? { ...data, celsius: 99, pressure: 1 } : data;
  const line = JSON.stringify({ topic, data: value, ts: new Date().toISOString() });
  const swaps = SWAP !== undefined && topic.startsWith(SWAP);
  if (swaps && fifth) {
    swapped = line;
    return;
  }
  store(line);
  if (swaps && swapped !== undefined) {
    const held = swapped;
    swapped = undefined;
    store(held);
  }
}

const uplink = connect(config.uplinks[0]?.url ?? "", {
  clientId: config.uplinks[0]?.clientId ?? "",
  protocolVersion: 4,
  clean: false,
  reconnectPeriod: 200,
});
uplink.on("error", () => {});
uplink.on("connect", () => {
  uplink.subscribe(`gw/${config.gateway.id}/cmd/#`, { qos: 1 });
  pump();
});
uplink.on("message", (_topic, payload) => {
  const { setpoint } = JSON.parse(payload.toString()) as { setpoint: number };
  serial?.write(frameOf(encodeDownlink({ kind: "command", setpoint: Math.round(setpoint * 100) })));
});

function pump(): void {
  while (uplink.connected && sent < stored.length && sent - mark < 50) {
    const seq = ++sent;
    const { topic, data, ts } = JSON.parse(stored[seq - 1] ?? "") as { topic: string; data: unknown; ts: string };
    const envelope = { gw: config.gateway.id, epoch: 1, seq, pri: 5, ts, late: 0, topic, data };
    uplink.publish(`gw/${config.gateway.id}/${topic}`, JSON.stringify(envelope), { qos: 1 }, (error) => {
      if (error) return;
      mark = seq;
      writeFileSync(markFile, String(mark));
      pump();
    });
  }
}

// ---------------------------------------------------------------- doors

function boilerData(payload: Buffer): Record<string, unknown> | undefined {
  const reading = decodeReading(payload);
  if (reading === undefined) return undefined;
  const flags = { door: reading.flags & 1, fan: (reading.flags >> 1) & 1, mode: (reading.flags >> 2) & 3 };
  const kind = reading.kind === 1 ? "status" : "alarm";
  return { kind, seq: reading.seq, temperature: reading.temperature / 100, pressure: reading.pressure / 10, flags };
}

let serial: SerialPort | undefined;
function openSerial(path: string): void {
  if (serial?.isOpen === true || serial?.opening === true || !existsSync(path)) return;
  const port = new SerialPort({ path, baudRate: 115_200 });
  const reader = new FrameReader();
  serial = port;
  port.on("error", () => {});
  port.on("data", (chunk: Buffer) =>
    reader.push(chunk, (payload) => {
      const data = boilerData(payload);
      if (data === undefined) return;
      accept(`plant/boiler/${String(data["kind"])}`, data);
      if (port.isOpen) port.write(frameOf(encodeDownlink({ kind: "ack", seq: Number(data["seq"]) })));
    }),
  );
}
const serialPath = source("boiler")?.path;
if (serialPath !== undefined) setInterval(() => openSerial(serialPath), 100);

function serveMqtt(connection: Socket): void {
  let protocolVersion = 4;
  const parser = mqttPacket.parser();
  const answer = (packet: Packet): void => void connection.write(mqttPacket.generate(packet, { protocolVersion }));
  connection.on("error", () => {});
  connection.on("data", (chunk) => parser.parse(chunk));
  parser.on("error", () => connection.destroy());
  parser.on("packet", (packet: Packet) => {
    if (packet.cmd === "connect") {
      protocolVersion = packet.protocolVersion ?? 4;
      answer({ cmd: "connack", returnCode: 0, reasonCode: 0, sessionPresent: false });
    } else if (packet.cmd === "pingreq") answer({ cmd: "pingresp" });
    else if (packet.cmd === "publish") {
      const payload = Buffer.from(packet.payload);
      const meter = /^legacy\/([^/]+)\/bin$/.exec(packet.topic)?.[1];
      if (meter === undefined) accept(packet.topic, JSON.parse(payload.toString()) as Record<string, unknown>);
      else accept(`meters/${meter}/temp`, boilerData(payload) ?? {});
      answer({ cmd: "puback", messageId: packet.messageId ?? 0, reasonCode: 0 });
    }
  });
}

let observed = 0;
let lastN = 0;
const yard = createSocket("udp4", (datagram, from) => {
  const packet = parse(datagram);
  if (packet.confirmable)
    yard.send(generate({ code: "0.00", ack: true, messageId: packet.messageId }), from.port, from.address);
  const value = decode(packet.payload) as { n: number };
  if (value.n <= lastN) return;
  lastN = value.n;
  observed += 1;
  accept("yard/temp", { ...value });
});
const askYard = (): void =>
  yard.send(
    generate({
      code: "0.01",
      confirmable: true,
      token: Buffer.from("y"),
      options: [
        { name: "Observe", value: Buffer.alloc(0) },
        { name: "Uri-Path", value: Buffer.from("temp") },
      ],
    }),
    portOf(source("yard")?.url),
    "127.0.0.1",
  );
setInterval(askYard, 2000);
askYard();

const field = createSocket("udp4", (datagram, from) => {
  const { code, messageId, token, payload } = parse(datagram);
  if (code === "0.00") return; // an RST: the answer came when the device had given it up
  accept("field/greenhouse", JSON.parse(payload.toString()) as Record<string, unknown>);
  field.send(generate({ code: "2.04", ack: true, messageId, token }), from.port, from.address);
});
field.bind(portOf(source("field")?.listen), "127.0.0.1");

const http = createHttpServer((request, response) => {
  if (request.url === "/metrics")
    response.end(`tidegate_source_accepted_total{source="yard",type="coap"} ${observed}\n`);
  else response.end(JSON.stringify({ uplinks: [{ queue: { messages: stored.length - mark } }] }));
});
http.listen(portOf(config.http.listen), "127.0.0.1", () => {
  createServer(serveMqtt).listen(portOf(config.mqtt.listeners[0]?.url), "127.0.0.1", () => {
    process.stdout.write(`${JSON.stringify({ level: 30, msg: "ready" })}\n`);
  });
});
process.once("SIGTERM", () => process.exit(0));
