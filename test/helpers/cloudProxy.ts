import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** Between a gateway and its cloud: passes every byte on, but for what it is told not to. */
export class CloudProxy {
  /** Lets new connections in. */
  admits = true;
  /** What the cloud answers is lost, until the connection ends. */
  loses = false;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number) {
    this.#server = createServer((gateway) => {
      gateway.on("error", () => {});
      if (!this.admits) {
        gateway.destroy();
        return;
      }
      const cloud = connect({ port, host: "127.0.0.1", noDelay: true });
      gateway.on("data", (chunk) => cloud.write(chunk));
      cloud.on("data", (chunk) => this.loses || gateway.write(chunk));
      this.#endTogether(gateway, cloud);
      this.#endTogether(cloud, gateway);
    });
  }

  /** @param port of the cloud */
  static async open(port: number): Promise<CloudProxy> {
    const proxy = new CloudProxy(port);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends the connections that there are. */
  interrupt(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.interrupt();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #endTogether(one: Socket, other: Socket): void {
    this.#sockets.add(one);
    one.on("error", () => {});
    one.on("close", () => {
      this.#sockets.delete(one);
      other.destroySoon();
    });
  }
}
