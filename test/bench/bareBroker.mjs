/**
 * The least that a broker can do, as the measure of what this machine gives to a broker in JavaScript: frames are cut and looked up by their topic's
 * bytes, and forwarded; QoS 1 and 2 are acknowledged. Exact filters, 3.1.1, no sessions, no limits, no checks. Not a broker: a ruler.
 */
import { createServer } from "node:net";

/** `runs`: QoS 0 packets that follow each other with the same first bytes go on as one piece, which is more than DESIGN.md's way does. */
const runs = process.argv[3] === "runs";
const subscribers = new Map();
const dirty = new Set();
let scheduled = false;

function flushAll() {
  scheduled = false;
  for (const client of dirty) client.flush();
  dirty.clear();
}

class Client {
  out = [];
  rest = undefined;
  nextId = 0;

  constructor(socket) {
    this.socket = socket;
    socket.on("data", (chunk) => this.read(chunk));
    socket.on("error", () => {});
  }

  add(bytes) {
    this.out.push(bytes);
    dirty.add(this);
    if (!scheduled) setImmediate(flushAll);
    scheduled = true;
  }

  flush() {
    this.socket.write(this.out.length === 1 ? this.out[0] : Buffer.concat(this.out));
    this.out.length = 0;
  }

  ack(first, high, low) {
    this.add(Buffer.from([first, 2, high, low]));
  }

  read(chunk) {
    if (this.rest !== undefined) chunk = Buffer.concat([this.rest, chunk]);
    let at = 0;
    while (at + 2 <= chunk.length) {
      let length = chunk[at + 1] & 127;
      let body = at + 2;
      for (let shift = 7; chunk[body - 1] & 128; shift += 7) length += (chunk[body++] & 127) << shift;
      if (!(body + length <= chunk.length)) break;
      at = this.plainRun(chunk, at, body, body + length);
    }
    this.rest = at < chunk.length ? chunk.subarray(at) : undefined;
  }

  /** One packet, or with `runs` as many of QoS 0 as follow with the same first bytes. Returns where the next begins. */
  plainRun(chunk, at, body, end) {
    if (chunk[at] !== 0x30) {
      this.packet(chunk, at, body, end);
      return end;
    }
    const topicEnd = body + 2 + chunk.readUInt16BE(body);
    const size = end - at;
    let last = end;
    const head = topicEnd - at;
    while (runs && last + size <= chunk.length && chunk.compare(chunk, at, topicEnd, last, last + head) === 0)
      last += size;
    const run = chunk.subarray(at, last);
    for (const client of subscribers.get(chunk.latin1Slice(body + 2, topicEnd)) ?? []) client.add(run);
    return last;
  }

  packet(chunk, at, body, end) {
    switch (chunk[at] >> 4) {
      case 1:
        return this.add(Buffer.from([0x20, 2, 0, 0]));
      case 3: {
        const idAt = body + 2 + chunk.readUInt16BE(body);
        for (const client of subscribers.get(chunk.latin1Slice(body + 2, idAt)) ?? []) {
          const frame = Buffer.from(chunk.subarray(at, end));
          client.nextId = (client.nextId % 65_535) + 1;
          frame.writeUInt16BE(client.nextId, idAt - at);
          client.add(frame);
        }
        return this.ack((chunk[at] & 6) === 2 ? 0x40 : 0x50, chunk[idAt], chunk[idAt + 1]);
      }
      case 5:
        return this.ack(0x62, chunk[body], chunk[body + 1]);
      case 6:
        return this.ack(0x70, chunk[body], chunk[body + 1]);
      case 8: {
        const topic = chunk.latin1Slice(body + 4, body + 4 + chunk.readUInt16BE(body + 2));
        subscribers.set(topic, [...(subscribers.get(topic) ?? []), this]);
        return this.add(Buffer.from([0x90, 3, chunk[body], chunk[body + 1], chunk[end - 1]]));
      }
    }
  }
}

createServer({ noDelay: true }, (socket) => new Client(socket)).listen(
  { port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 },
  () => process.stdout.write("running\n"),
);
