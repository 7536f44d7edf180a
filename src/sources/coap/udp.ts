import { createSocket, type RemoteInfo, type Socket } from "node:dgram";

/** An endpoint (RFC 7252 section 1.2): over UDP without security, address and port. */
export interface Peer {
  readonly address: string;
  readonly port: number;
}

export interface Udp {
  readonly local: Peer;
  /** Fire and forget; what the system refuses goes to `onError`. `peer` is left out on a connected socket. */
  send(bytes: Buffer, peer?: Peer): void;
  /** Resolves when the port is free again. What was sent before still goes out. */
  close(): Promise<void>;
}

export interface UdpHandlers {
  onDatagram(datagram: Buffer, peer: Peer): void;
  /** The socket's error, while it is open. It may still work (ICMP of a peer) or not. */
  onError(error: Error): void;
}

/** Binds a socket, or connects it to one peer, so that the kernel drops what others send. Rejects with the system's error. */
export async function openUdp(
  how: { family: 4 | 6 } & ({ bind: Peer } | { connect: Peer }),
  handlers: UdpHandlers,
): Promise<Udp> {
  const socket = createSocket({ type: how.family === 6 ? "udp6" : "udp4" });
  try {
    await settled(socket, (done) => {
      if ("bind" in how) socket.bind(how.bind.port, how.bind.address, done);
      else socket.connect(how.connect.port, how.connect.address, done);
    });
  } catch (error) {
    socket.close();
    throw error;
  }
  return wrap(socket, handlers);
}

function settled(socket: Socket, begin: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("error", reject);
    begin((error) => {
      socket.off("error", reject);
      if (error) reject(error);
      else resolve();
    });
  });
}

function wrap(socket: Socket, handlers: UdpHandlers): Udp {
  let open = true;
  const onSent = (error: Error | null): void => {
    if (error !== null && open) handlers.onError(error);
  };
  socket.on("message", (datagram: Buffer, remote: RemoteInfo) => {
    // Port 0 can be forged, and nothing can be sent to it: socket.send would throw.
    if (open && remote.port !== 0) handlers.onDatagram(datagram, remote);
  });
  socket.on("error", (error) => {
    if (open) handlers.onError(error);
  });
  const { address, port } = socket.address();
  return {
    local: { address, port },
    send(bytes, peer) {
      if (!open) return;
      if (peer === undefined) socket.send(bytes, onSent);
      else socket.send(bytes, peer.port, peer.address, onSent);
    },
    close() {
      if (!open) return Promise.resolve();
      open = false;
      // Node puts a send off to the next tick, and a closed socket would drop it.
      return new Promise((resolve) => setImmediate(() => socket.close(() => resolve())));
    },
  };
}
