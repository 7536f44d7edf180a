import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { loadConfig } from "../../../src/config/load.ts";
import { uplinkOptions } from "../../../src/stageOptions.ts";

describe("uplink: files that are too large to be what they should be", () => {
  let dir = "";
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "tidegate-"));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  async function optionsOf(uplink: string): Promise<Awaited<ReturnType<typeof uplinkOptions>>> {
    const path = join(dir, "c.yaml");
    await writeFile(path, `uplinks: [ { name: a, url: "mqtts://h", username: u, ${uplink} } ]`);
    const loaded = await loadConfig({ path });
    if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
    return uplinkOptions(loaded.config.uplinks[0]!, "g");
  }
  const failure = (promise: Promise<unknown>): Promise<string> =>
    promise.then(
      () => "",
      (error: Error) => error.message,
    );

  it("certificates: 4 MiB, and no more of one is read", async () => {
    const ca = join(dir, "ca.pem");
    await writeFile(ca, Buffer.alloc(4 * 1024 * 1024, "x"));
    expect((await optionsOf("tls: { ca: ca.pem }")).tls?.ca).to.have.length(4 * 1024 * 1024);
    await writeFile(ca, Buffer.alloc(4 * 1024 * 1024 + 1, "x"));
    const says = `${ca} cannot be read: more than 4194304 bytes (a PEM file)`;
    expect(await failure(optionsOf("tls: { ca: ca.pem }"))).to.equal(says);
    await rm(ca);
    expect(await failure(optionsOf("tls: { ca: /dev/zero }"))).to.contain("more than 4194304 bytes");
  });

  it("a password that has grown since: 64 KiB", async () => {
    const password = join(dir, "pw");
    await writeFile(password, "secret\n");
    const { reread } = await optionsOf("password: { file: pw }");
    expect((await reread?.())?.password).to.equal("secret");
    await writeFile(password, "x".repeat(64 * 1024 + 1));
    expect(await failure(reread!())).to.match(/pw: more than 65536 bytes \(a file with the secret/);
  });
});
