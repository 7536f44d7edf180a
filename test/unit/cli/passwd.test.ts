import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { expect } from "chai";
import { verifyPassword } from "../../../src/base/passwords.ts";
import { askPassword, type PasswordInput } from "../../../src/cli/askPassword.ts";
import { passwdAdd, passwdList, passwdRemove } from "../../../src/cli/passwd.ts";
import { readUsersFile } from "../../../src/config/usersFile.ts";

describe("tidegate passwd", () => {
  let folder = "";
  let config = "";
  let file = "";
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    config = join(folder, "tidegate.yaml");
    file = join(folder, "people.yaml");
    // Not valid as it stands: open to the network, and nobody is there yet.
    writeFileSync(config, "mqtt: { listeners: [{ url: mqtt://0.0.0.0 }] }\naccess: { usersFile: people.yaml }\n");
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  async function ran(what: "add" | "remove" | "list", name: string, password = "") {
    const out: string[] = [];
    const err: string[] = [];
    const input = new PassThrough();
    input.end(password);
    const io = { input, out: (line: string) => out.push(line), err: (line: string) => err.push(line), show: () => {} };
    const command = { add: passwdAdd, remove: passwdRemove, list: passwdList }[what];
    const code = await command(name, { config }, io);
    return { code, out, err };
  }
  const names = (): string[] => readUsersFile(file).users.map(({ name }) => name);
  const isPassword = (name: string, password: string): Promise<boolean> =>
    new Promise((resolve, reject) => {
      const user = readUsersFile(file).users.find((one) => one.name === name);
      if (user === undefined) reject(new Error(`no ${name}`));
      else verifyPassword(user.scrypt, Buffer.from(password), resolve);
    });

  it("adds, changes, lists and removes, and leaves nothing else behind", async () => {
    const added = await ran("add", "ann", "pencil\n");
    expect(added.code, added.err.join()).to.equal(0);
    expect(added.out[0]).to.equal(`added ann in ${file}`);
    expect(added.out.at(-1)).to.contain("SIGHUP");
    expect(statSync(file).mode & 0o777).to.equal(0o600);
    expect(await isPassword("ann", "pencil")).to.equal(true);
    expect((await ran("add", "bob", "two words ")).code).to.equal(0);
    expect(await isPassword("bob", "two words ")).to.equal(true);
    expect((await ran("add", "ann", "crayon\r\n")).out[0]).to.contain("another password for ann");
    expect(await isPassword("ann", "pencil")).to.equal(false);
    expect(await isPassword("ann", "crayon")).to.equal(true);
    expect((await ran("list", "ann")).code).to.equal(0);
    expect((await ran("list", "eve")).code).to.equal(1);
    expect((await ran("remove", "eve")).code).to.equal(2);
    expect((await ran("remove", "ann")).code).to.equal(0);
    expect(names()).to.deep.equal(["bob"]);
    expect((await ran("remove", "bob")).out[1]).to.contain("nobody is left");
    expect(readdirSync(folder).sort()).to.deep.equal(["people.yaml", "tidegate.yaml"]);
  });

  it("refuses names and passwords that cannot be, and changes nothing then", async () => {
    for (const name of ["", "*", "anonymous", "a\nb"]) expect((await ran("add", name, "x")).code, name).to.equal(2);
    for (const password of ["", "\n", "a\nb", "a\tb", "x".repeat(2000)]) {
      const { code, err } = await ran("add", "ann", password);
      expect(code).to.equal(2);
      if (password.length > 2) expect(err.join()).to.not.contain(password);
    }
    expect(readdirSync(folder)).to.deep.equal(["tidegate.yaml"]);
  });

  it("does not touch a damaged file, and says where it is damaged", async () => {
    writeFileSync(file, "version: 1\nusers: [x]\n");
    for (const what of ["add", "remove", "list"] as const) {
      const { code, err } = await ran(what, "ann", "x");
      expect(code).to.equal(2);
      expect(err[0]).to.contain(`${file}:2:9: users[0]: not a user`);
    }
    expect(readFileSync(file, "utf8")).to.equal("version: 1\nusers: [x]\n");
  });

  it("a config that is no YAML, or not there: exit 2", async () => {
    writeFileSync(config, "a: [\n");
    expect((await ran("list", "ann")).code).to.equal(2);
    rmSync(config);
    expect((await ran("list", "ann")).err[0]).to.contain("no such file");
  });

  it("many at a time: all are in it", async () => {
    const wanted = Array.from({ length: 8 }, (_, at) => `user${at}`);
    const results = await Promise.all(wanted.map((name) => ran("add", name, "x")));
    expect(results.map(({ code }) => code)).to.deep.equal(wanted.map(() => 0));
    expect(names()).to.deep.equal(wanted);
  });

  it("keeps a link a link", async () => {
    symlinkSync("elsewhere.yaml", file);
    writeFileSync(join(folder, "elsewhere.yaml"), "");
    await ran("add", "ann", "x");
    expect(readdirSync(folder).sort()).to.deep.equal(["elsewhere.yaml", "people.yaml", "tidegate.yaml"]);
    expect(names()).to.deep.equal(["ann"]);
    expect(readFileSync(join(folder, "elsewhere.yaml"), "utf8")).to.contain("ann");
  });

  it("what a killed one left behind is in nobody's way", async () => {
    writeFileSync(`${file}.new`, "half");
    writeFileSync(`${file}.lock`, "");
    utimesSync(`${file}.lock`, 0, 0);
    expect((await ran("add", "ann", "x")).code).to.equal(0);
    expect(names()).to.deep.equal(["ann"]);
  });

  it("a file that cannot be written: exit 1", async () => {
    writeFileSync(config, "access: { usersFile: missing/people.yaml }\n");
    const { code, err } = await ran("add", "ann", "x");
    expect(code).to.equal(1);
    expect(err[0]).to.equal(
      `tidegate: there is no folder ${join(folder, "missing")}: make it, or set access.usersFile`,
    );
  });

  describe("on a terminal", () => {
    /** Someone who types as soon as the question is there: the terminal must not show it from then on. */
    function typing(...keys: string[]) {
      const modes: boolean[] = [];
      const shown: string[] = [];
      const hidden: boolean[] = [];
      const input: PasswordInput = Object.assign(new PassThrough(), {
        isTTY: true as const,
        setRawMode(mode: boolean) {
          modes.push(mode);
          return input as never;
        },
      });
      const show = (text: string): void => {
        shown.push(text);
        if (!text.endsWith(": ")) return;
        hidden.push(modes.at(-1) === true);
        setImmediate(() => (input as PassThrough).write(keys.shift() ?? ""));
      };
      return { asked: askPassword(input, show), modes, shown, hidden };
    }
    const failure = (asked: Promise<string>): Promise<string> =>
      asked.then(
        (password) => `got ${password}`,
        (error: Error) => error.message,
      );

    it("asks twice and shows nothing of it", async () => {
      const { asked, modes, shown, hidden } = typing("se\u007fecrét\r", "seecrét\n");
      expect(await failure(asked)).to.contain("differ");
      expect(hidden, "before each question").to.deep.equal([true, true]);
      expect(modes, "and in between; then the terminal is as it was").to.deep.equal([true, false]);
      expect(shown.join("")).to.equal("password: \nagain: \n");
      expect(await typing("wrong\u0015secrXX\u007f\bét\r", "secrét\r").asked).to.equal("secrét");
    });

    it("gives up with Ctrl-C, and the terminal is as it was", async () => {
      const { asked, modes } = typing("sec\u0003");
      expect(await failure(asked)).to.contain("nothing was changed");
      expect(modes).to.deep.equal([true, false]);
    });
  });
});
