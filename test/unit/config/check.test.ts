import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { check } from "../../../src/cli/check.ts";

describe("tidegate check", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  async function checked(text: string | undefined) {
    const config = join(folder, text === undefined ? "missing.yaml" : "tidegate.yaml");
    if (text !== undefined) writeFileSync(config, text);
    const out: string[] = [];
    const err: string[] = [];
    const code = await check({ config }, { out: (line) => out.push(line), err: (line) => err.push(line) });
    return { config, code, out, err };
  }

  it("says that a config is valid", async () => {
    const { config, code, out, err } = await checked("gateway: { id: a }\n");
    expect({ code, out, err }).to.deep.equal({ code: 0, out: [`${config}: valid`], err: [] });
  });

  it("prints every error with its place", async () => {
    const { config, code, out, err } = await checked("gateway:\n  id: 5\nmqtt: 1\n");
    expect(code).to.equal(2);
    expect(out).to.deep.equal([]);
    expect(err[0]).to.match(/^.*:2:7: gateway\.id: a number where a text is expected \(.*\)$/);
    expect(err.map((line) => line.slice(config.length, config.length + 5))).to.deep.equal([":2:7:", ":3:7:"]);
  });

  it("lists what is not available, and warnings, and is content all the same", async () => {
    const { config, code, out, err } = await checked(
      "access: { anonymous: false }\ncodecs: { c: { type: csv, columns: [a] } }\n",
    );
    expect(code).to.equal(0);
    expect(err[0]).to.equal(`${config}:2:22: codecs.c.type: not yet available: this codec`);
    expect(err[1]).to.contain(`${config}:1:22: access.anonymous: warning: nobody can connect`);
    expect(out[0]).to.contain("not yet available");
  });

  it("says that a named file is missing", async () => {
    const { config, code, err } = await checked(undefined);
    expect(code).to.equal(2);
    expect(err).to.deep.equal([`${config}: no such file (a YAML file)`]);
  });
});
