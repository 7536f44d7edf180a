/** What Node's own sockets cost: each is read, answered as a CONNECT or SUBSCRIBE, and kept. Not a broker: a ruler for memory and connecting. */
import { createServer } from "node:net";
import { setFlagsFromString } from "node:v8";

setFlagsFromString("--semi-space-growth-factor=1"); // the young generation as the gateway has it: else its growth is what is measured

const sockets = new Set();
createServer({ noDelay: true }, (socket) => {
  sockets.add(socket);
  socket.on("data", (chunk) => {
    const isConnect = chunk[0] >> 4 === 1;
    socket.write(Buffer.from(isConnect ? [0x20, 2, 0, 0] : [0x90, 3, chunk[2], chunk[3], 0]));
  });
  socket.on("error", () => {});
}).listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 }, () => process.stdout.write("running\n"));
