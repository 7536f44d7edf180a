import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { makeUser, scryptText, type User } from "../../../src/base/passwords.ts";
import { changesForRestart } from "../../../src/config/changes.ts";
import { findUsersFile, formatProblem, loadConfig } from "../../../src/config/load.ts";
import { parseUsers, readUsersFile, usersText } from "../../../src/config/usersFile.ts";
import { accepted, places, problemsOf } from "./helpers.ts";

describe("config: the users file", () => {
  let folder = "";
  let ann: User;
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "tidegate-"));
    ann = await makeUser("ann", "p");
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("is read as it was written, whatever the names are", () => {
    const names = [
      "ann",
      "a b",
      '"q"',
      "a\\b",
      `$\{HOME}`,
      `$$\{x}`,
      "{a: b}",
      "#",
      "a: b",
      "null",
      "Zürich",
      "'",
      "-",
    ];
    const { users, problems } = parseUsers(usersText(names.map((name) => ({ ...ann, name }))), "u");
    expect(problems).to.deep.equal([]);
    expect(users.map(({ name }) => name)).to.have.members(names);
    expect(users.every(({ scrypt }) => scryptText(scrypt) === scryptText(ann.scrypt))).to.equal(true);
    for (const nobody of ["", "# nobody\n", usersText([])]) expect(parseUsers(nobody, "u").problems).to.deep.equal([]);
  });

  const damaged: Array<[what: string, spoil: (text: string) => string, place: string, message: string]> = [
    ["half a file", (text) => text.slice(0, -30), "4:238", "closing quote"],
    [
      "a hash that lost a digit",
      (text) => text.replace(/\$scrypt[^"]*/, (hash) => hash.slice(0, -3)),
      "4:28",
      "not a scrypt hash",
    ],
    [
      "a verifier of something else",
      (text) => text.replace("SCRAM-SHA-256", "SCRAM-SHA-1"),
      "4:130",
      "not a SCRAM verifier",
    ],
    ["a newer version", (text) => text.replace("version: 1", "version: 2"), "2:10", "version 2 of the users file"],
    ["no version", (text) => text.replace("version: 1\n", ""), "2:1", "no version"],
    ["the same user twice", (text) => text + text.split("\n")[3], "5:5", "ann is in it already"],
    [
      "a name that means something else",
      (text) => text.replace('"ann"', '"anonymous"'),
      "4:13",
      "a meaning of its own",
    ],
    ["no list", () => "version: 1\nusers: { ann: x }\n", "2:8", "not a list"],
    ["another program's users", () => "version: 1\nusers:\n  - ann\n", "3:5", "not a user"],
    ["a key that is none", (text) => `${text}admins: []\n`, "5:1", "unknown key"],
  ];
  for (const [what, spoil, place, message] of damaged) {
    it(`${what}: says where, and nothing of a hash`, () => {
      const { users, problems } = parseUsers(spoil(usersText([ann])), "users.yaml");
      expect(users).to.deep.equal([]);
      const texts = problems.map(formatProblem);
      expect(texts[0]).to.match(new RegExp(`^users.yaml:${place}: .*${message}`));
      expect(texts.join("\n")).to.not.contain("ln=14");
    });
  }

  it("belongs to the config: its problems are the config's, under its own name, and its users are in it", async () => {
    const path = join(folder, "tidegate.yaml");
    const file = join(folder, "people.yaml");
    const text = "access: { usersFile: people.yaml }";
    writeFileSync(file, usersText([ann]));
    expect((await accepted(text, { path })).access.users.map(({ name }) => name)).to.deep.equal(["ann"]);
    writeFileSync(file, "version: 1\nusers: [x]\n");
    const [problem] = await problemsOf(text, { path });
    expect(problem?.file).to.equal(file);
    expect(problem?.line).to.equal(2);
    // Open to the network with a damaged file: that it is damaged is the thing to say.
    const open = `mqtt: { listeners: [{ url: mqtt://0.0.0.0 }] }\n${text}`;
    expect((await problemsOf(open, { path })).map((one) => one.file)).to.deep.equal([file]);
    rmSync(file);
    expect((await accepted(text, { path })).access.users).to.deep.equal([]);
  });

  it("that cannot be read is no empty one", () => {
    const file = join(folder, "folder");
    mkdirSync(file);
    expect(readUsersFile(file).problems[0]?.message).to.contain("a folder, not a file");
    const secret = join(folder, "secret.yaml");
    writeFileSync(secret, Buffer.from([0xff]));
    expect(readUsersFile(secret).problems[0]?.message).to.contain("not UTF-8");
    if (process.getuid?.() !== 0) {
      chmodSync(secret, 0);
      expect(readUsersFile(secret).problems[0]?.message).to.contain("no permission");
    }
  });

  it("is found through a config that has other faults", () => {
    const path = join(folder, "broken.yaml");
    writeFileSync(
      path,
      "mqtt: { listeners: [{ url: mqtt://0.0.0.0 }], nonsense: 1 }\naccess: { usersFile: x/y.yaml }\n",
    );
    expect(findUsersFile(path)).to.equal(join(folder, "x", "y.yaml"));
    writeFileSync(path, "access: 5\n");
    expect(findUsersFile(path)).to.equal(join(folder, "users.yaml"));
    writeFileSync(path, "a: [\n");
    expect(findUsersFile(path)).to.be.an("array");
    expect(findUsersFile(join(folder, "missing.yaml"))).to.be.an("array");
  });

  it("may become empty while the gateway runs: a warning, where a start is refused", async () => {
    const text = "mqtt: { listeners: [{ url: mqtt://0.0.0.0 }] }";
    const path = join(folder, "open.yaml");
    expect(places(await problemsOf(text, { path }))).to.deep.equal(["1:28 mqtt.listeners[0].url"]);
    const running = await loadConfig({ text, path, env: {}, hostname: "h", running: true });
    expect(running.ok && running.config.access.anonymous).to.equal(false);
    expect(running.ok && places(running.warnings)).to.deep.equal(["1:28 mqtt.listeners[0].url"]);
  });
});

describe("config: access rules", () => {
  it("bad ones are said with line and column", async () => {
    const text = `access:
  rules:
    - { allow: all, deny: all, topic: a }
    - { topic: a }
    - { allow: write, topic: a }
    - { allow: all, topic: "a/#/b" }
    - { deny: all, users: [], topic: a }
    - { allow: all, topic: $share/g/a }
    - { allow: all, user: [a], topic: a }
    - { allow: all, users: a, topic: a }
    - { allow: all, users: ["*"], topic: "sensors/%c/#" }
`;
    expect(places(await problemsOf(text))).to.deep.equal([
      "3:7 access.rules[0]",
      "4:7 access.rules[1]",
      "5:16 access.rules[2].allow",
      "6:28 access.rules[3].topic",
      "7:27 access.rules[4].users",
      "8:28 access.rules[5].topic",
      "9:21 access.rules[6].user",
      "10:28 access.rules[7].users",
    ]);
  });
});

describe("config: what a reload takes over", () => {
  it("names all else, and no value of it", async () => {
    const uplink = (password: string) => `uplinks: [{ name: a, url: mqtt://h, username: u, password: ${password} }]`;
    const before = await accepted(uplink("one"));
    const after = await accepted(
      `${uplink("two")}\nmqtt: { limits: { maxConnections: 5, session: { maxMessages: 7 } } }\naccess: { anonymous: false, rules: [{ allow: all, topic: a }] }\ngateway: { logLevel: debug, id: other }\nhttp: { listen: false }`,
    );
    expect(changesForRestart(before, before)).to.deep.equal([]);
    expect(changesForRestart(before, after).sort()).to.deep.equal([
      "gateway.id",
      "http.listen",
      "mqtt.limits.maxConnections",
      "mqtt.limits.session.maxMessages",
      "uplinks",
    ]);
    expect(changesForRestart(before, { ...before, access: after.access })).to.deep.equal([]);
  });
});
