import { pbkdf2Sync } from "node:crypto";
import { expect } from "chai";
import { scramKeys, type User } from "../../../../src/base/passwords.ts";
import { fakeVerifiers, type ScramDeps, ScramExchange } from "../../../../src/broker/access/scram.ts";
import { ScramClient, testUser } from "../../../helpers/testUsers.ts";

const text = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();

describe("SCRAM-SHA-256", () => {
  const ann = testUser("ann", "pencil");
  const exchange = (more: Partial<ScramDeps> = {}): ScramExchange =>
    new ScramExchange({ user: (name) => (name === "ann" ? ann : undefined), fake: fakeVerifiers(), ...more });

  it("does the exchange of RFC 7677 section 3", () => {
    const salt = Buffer.from("W22ZaJ0SNY7soEsUEjb6gQ==", "base64");
    const scram = { iterations: 4096, salt, ...scramKeys(pbkdf2Sync("pencil", salt, 4096, 32, "sha256")) };
    const user: User = { ...ann, name: "user", scram };
    const server = exchange({ user: () => user, nonce: () => "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" });
    const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    expect(text(server.first(Buffer.from("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")))).to.equal(
      `r=${nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`,
    );
    const final = server.final(Buffer.from(`c=biws,r=${nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`));
    expect(final?.user).to.equal(user);
    expect(text(final?.answer)).to.equal("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
  });

  it("takes names with , and =, the flag y, and an authzid that is the name", () => {
    const odd = testUser("a,b=c", "w");
    for (const header of ["n,,", "y,,", "n,a=a=2Cb=3Dc,"]) {
      const server = exchange({ user: (name) => (name === "a,b=c" ? odd : undefined) });
      const client = new ScramClient("a,b=c", "w");
      const final = server.final(client.final(server.first(client.first(header)) ?? Buffer.alloc(0), header));
      expect(final?.user, header).to.equal(odd);
      expect(text(final?.answer)).to.equal(client.expected);
    }
  });

  it("refuses a wrong password, and takes one guess only", () => {
    const server = exchange();
    const client = new ScramClient("ann", "pencils");
    const challenge = server.first(client.first()) ?? Buffer.alloc(0);
    expect(server.final(client.final(challenge))).to.equal(undefined);
    const again = new ScramClient("ann", "pencil", "abc");
    const second = server.first(again.first()) ?? Buffer.alloc(0);
    const final = again.final(second);
    expect(server.final(final)?.user).to.equal(ann);
    expect(server.final(final)).to.equal(undefined);
  });

  it("gives who does not exist the same salt each time, others another, and lets nobody in by it", () => {
    const fake = fakeVerifiers();
    const saltOf = (name: string): string => {
      const answer = text(exchange({ fake }).first(new ScramClient(name, "x").first()));
      return /,s=([^,]+),i=8192$/.exec(answer)?.[1] ?? answer;
    };
    expect(saltOf("eve")).to.equal(saltOf("eve"));
    expect(saltOf("eve")).to.not.equal(saltOf("mallory"));
    expect(Buffer.from(saltOf("eve"), "base64")).to.have.length(16);
    const server = exchange({ fake });
    const client = new ScramClient("eve", "x");
    expect(server.final(client.final(server.first(client.first()) ?? Buffer.alloc(0)))).to.equal(undefined);
  });

  it("has another nonce each time, behind the client's", () => {
    const nonces = new Set([1, 2, 3].map(() => text(exchange().first(Buffer.from("n,,n=ann,r=abc"))).split(",")[0]));
    expect(nonces.size).to.equal(3);
    for (const nonce of nonces) expect(nonce).to.match(/^r=abc.{24}$/);
  });

  for (const [what, message] of [
    ["channel binding", "p=tls-unique,,n=ann,r=abc"],
    ["another authzid", "n,a=root,n=ann,r=abc"],
    ["a mandatory extension", "n,,m=x,n=ann,r=abc"],
    ["no name", "n,,n=,r=abc"],
    ["a name with a bare =", "n,,n=a=b,r=abc"],
    ["no nonce", "n,,n=ann,r="],
    ["a nonce that is not printable", "n,,n=ann,r=a\u0001b"],
    ["no header", "n=ann,r=abc"],
    ["U+0000", "n,,n=a\u0000,r=abc"],
    ["nothing", ""],
    ["what is too long to be honest", `n,,n=ann,r=abc,x=${"y".repeat(5000)}`],
  ] as const) {
    it(`refuses a first message with ${what}`, () => {
      expect(exchange().first(Buffer.from(message))).to.equal(undefined);
    });
  }

  it("refuses a first message that is not UTF-8", () => {
    expect(exchange().first(Buffer.from("n,,n=\xff,r=abc", "latin1"))).to.equal(undefined);
  });

  for (const [what, spoil] of [
    ["another nonce", (final: string) => final.replace(/r=[^,]{3}/, "r=zzz")],
    ["another binding", (final: string) => final.replace("c=biws", "c=eSws")],
    ["an extension that the proof does not know", (final: string) => final.replace(",p=", ",x=1,p=")],
    ["no proof", (final: string) => final.replace(/,p=.*/, "")],
    ["half a proof", (final: string) => final.replace(/p=(.{20}).*/, "p=$1")],
    ["a proof that is not base64", (final: string) => final.replace(/p=./, "p=*")],
    ["something behind the proof", (final: string) => `${final},x=1`],
    ["a second proof", (final: string) => `${final},p=AAAA`],
  ] as const) {
    it(`refuses a final message with ${what}`, () => {
      const server = exchange();
      const client = new ScramClient("ann", "pencil");
      const final = text(client.final(server.first(client.first()) ?? Buffer.alloc(0)));
      expect(server.final(Buffer.from(spoil(final)))).to.equal(undefined);
    });
  }

  it("refuses a final message without a first", () => {
    expect(exchange().final(Buffer.from("c=biws,r=abc,p=AAAA"))).to.equal(undefined);
  });
});
