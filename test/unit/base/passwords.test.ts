import { expect } from "chai";
import {
  makeUser,
  nobodysHash,
  parseScram,
  parseScrypt,
  passwordFault,
  scramText,
  scryptText,
  userNameFault,
  verifyPassword,
} from "../../../src/base/passwords.ts";
import { saslprep } from "../../../src/base/saslprep.ts";

const verified = (kept: Parameters<typeof verifyPassword>[0], password: string | Uint8Array): Promise<boolean> =>
  new Promise((resolve) => verifyPassword(kept, Buffer.from(password), resolve));

describe("passwords", () => {
  it("SASLprep as in RFC 4013 section 3", () => {
    expect(saslprep("I\u00adX")).to.equal("IX");
    expect(saslprep("user")).to.equal("user");
    expect(saslprep("USER")).to.equal("USER");
    expect(saslprep("\u00aa")).to.equal("a");
    expect(saslprep("\u2168")).to.equal("IX");
    expect(saslprep("\u0007")).to.equal(undefined);
    expect(saslprep("a\u00a0b")).to.equal("a b");
    for (const wrong of ["a\u0000", "\u007f", "\ue000", "\ud800", "\ufffe", "\u200e", "a\u2028b", "\u{e0041}"])
      expect(saslprep(wrong), wrong).to.equal(undefined);
  });

  it("one password is one, however its letters were composed", async () => {
    const { scrypt } = await makeUser("ann", "Zürich\u00a01");
    expect(await verified(scrypt, "Zu\u0308rich 1")).to.equal(true);
    expect(await verified(scrypt, "Zurich 1")).to.equal(false);
    expect(await verified(scrypt, "")).to.equal(false);
    expect(await verified(scrypt, Buffer.from([0xff, 0xfe]))).to.equal(false);
  });

  it("has a salt of its own for each user and use, and nobody's hash has no password", async () => {
    const [a, b] = await Promise.all([makeUser("a", "same"), makeUser("b", "same")]);
    const texts = [a, b].flatMap(({ scrypt, scram }) => [scryptText(scrypt), scramText(scram)]);
    expect(new Set(texts).size).to.equal(4);
    expect(Buffer.from(a.scrypt.salt).equals(a.scram.salt)).to.equal(false);
    expect(a.scrypt).to.include({ ln: 14, r: 8, p: 1 });
    expect(a.scram.iterations).to.be.at.least(4096);
    expect(await verified(nobodysHash, "")).to.equal(false);
  });

  it("what is written is read back; what would take too much or too little work is not", async () => {
    const { scrypt, scram } = await makeUser("ann", "p");
    const text = scryptText(scrypt);
    expect(scryptText(parseScrypt(text) ?? nobodysHash)).to.equal(text);
    expect(scramText(parseScram(scramText(scram)) ?? { ...scram, iterations: 1 })).to.equal(scramText(scram));
    for (const [from, to] of [
      ["ln=14", "ln=30"],
      ["ln=14", "ln=9"],
      ["r=8", "r=99"],
      ["r=8", "r=0"],
      ["p=1", "p=99"],
      ["$scrypt", "$argon2"],
      [/\$[^$]+$/, "$AAAA"],
    ] as const)
      expect(parseScrypt(text.replace(from, to)), String(to)).to.equal(undefined);
    expect(parseScram(scramText(scram).replace("8192", "4095"))).to.equal(undefined);
    expect(parseScram("")).to.equal(undefined);
  });

  it("a cost that scrypt itself does not take (N below 2^(16 r)) is not read: checking it would throw", () => {
    const kept = { ln: 15, r: 1, p: 1, salt: Buffer.alloc(16), hash: Buffer.alloc(32) };
    for (const ln of [15, 16, 19]) {
      const parsed = parseScrypt(scryptText({ ...kept, ln }));
      expect(parsed?.ln, `ln=${ln}`).to.equal(ln < 16 ? ln : undefined);
    }
  });

  it("names and passwords that cannot be", () => {
    for (const name of ["", "*", "anonymous", "a\nb", "x".repeat(257), "\u00aa", "a\u200db"])
      expect(userNameFault(name), name).to.be.a("string");
    for (const name of ["ann", "a b", "a/b", "#", "%u", "Zürich", "Anonymous"])
      expect(userNameFault(name), name).to.equal(null);
    for (const password of ["", "\u00ad", "a\tb", "x".repeat(1025)]) expect(passwordFault(password)).to.be.a("string");
    expect(passwordFault(" ")).to.equal(null);
  });
});
