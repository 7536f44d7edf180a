import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { type Packet, parser } from "mqtt-packet";
import type { SeenPacket } from "./fakeCloud.ts";

/** Between a client and the gateway: passes every byte on, and keeps what packets were in them. MQTT 5, one connection at a time. */
export class TapProxy {
  /** From the gateway to the client. */
  readonly down: SeenPacket[] = [];
  /** From the client to the gateway. */
  readonly up: SeenPacket[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number) {
    this.#server = createServer((client) => {
      const gateway = connect({ port, host: "127.0.0.1", noDelay: true });
      this.#tap(client, gateway, this.up);
      this.#tap(gateway, client, this.down);
    });
  }

  static async open(port: number): Promise<TapProxy> {
    const proxy = new TapProxy(port);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #tap(from: Socket, to: Socket, seen: SeenPacket[]): void {
    const reader = parser({ protocolVersion: 5 });
    reader.on("packet", (packet: Packet) => seen.push(packet as unknown as SeenPacket));
    this.#sockets.add(from);
    from.on("data", (chunk: Buffer) => {
      reader.parse(chunk);
      to.write(chunk);
    });
    from.on("error", () => {});
    from.on("close", () => {
      this.#sockets.delete(from);
      to.destroySoon();
    });
  }
}
