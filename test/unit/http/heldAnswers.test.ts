import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { expect } from "chai";
import { silentLog } from "../../../src/base/log.ts";
import { type HttpHandle, listenHttp } from "../../../src/http/server.ts";
import { until } from "../../helpers/wait.ts";

/** More than the kernel takes for a peer that does not read. */
const page = "x".repeat(16 * 1024 * 1024);

describe("http: a client that asks and does not read", () => {
  let server: HttpHandle;
  let made: number;
  const clients: Socket[] = [];

  async function open(answerMsMax?: number): Promise<void> {
    made = 0;
    const views = {
      health: () => [],
      metrics: () => {
        made += 1;
        return page;
      },
      status: () => ({}),
    };
    server = await listenHttp({ host: "127.0.0.1", port: 0, answerMsMax }, views, silentLog);
  }
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy();
    await server.close();
  });

  function asks(path: string, times: number): Socket {
    const client = connect(server.port, "127.0.0.1");
    clients.push(client.on("error", () => {}));
    client.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`.repeat(times));
    return client;
  }

  async function textOf(client: Socket, until: RegExp): Promise<string> {
    let text = "";
    while (!until.test(text)) text += String((await once(client, "data"))[0]);
    return text;
  }

  it("has one answer made for it, whatever it asks ahead", async () => {
    await open();
    const held = asks("/metrics", 8).pause();
    await until("the first is made", () => made > 0);
    // Whoever comes behind it is answered, so the others had every chance to be made.
    for (let times = 0; times < 5; times += 1)
      expect(await textOf(asks("/health", 1), /reasons/)).to.match(/^HTTP\/1.1 200 /);
    expect(made).to.equal(1);
    held.resume();
    await until("all of them, once it reads", () => made === 8);
  });

  it("gets its answers in order when it reads", async () => {
    await open();
    const text = await textOf(asks("/health", 8), /(reasons[\s\S]*){8}/);
    expect(text.match(/HTTP\/1.1 200 /g)).to.have.length(8);
  });

  it("is ended when it asks for more ahead than anybody does", async () => {
    await open();
    const client = asks("/metrics", 1000).pause();
    await until("it is ended", () => client.resume().destroyed);
    expect(made).to.be.below(2);
  });

  it("is ended when it does not take its answer in time", async () => {
    await open(50);
    const client = asks("/metrics", 1).pause();
    await until("it is made", () => made === 1);
    // It reads nothing, so it hears of its end only when it writes.
    await until("it is ended", () => {
      client.write("\r\n");
      return client.destroyed;
    });
  });
});
