/** Whether each numbered statement of MQTT 3.1.1 that binds a server is in the title of a test of this folder. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";

const folder = import.meta.dirname;
const clauses = JSON.parse(readFileSync(join(folder, "clauses.json"), "utf8")) as Record<string, string>;

/** The numbers in titles of `it`: strings and templates, or rows of tables, which start with their clause in brackets. */
function titled(): Set<string> {
  const found = new Set<string>();
  for (const file of readdirSync(folder).filter((name) => name.endsWith(".test.ts"))) {
    const text = readFileSync(join(folder, file), "utf8");
    for (const [, title = ""] of text.matchAll(/["'`](\[[^"'`\n]*)["'`]/g)) {
      for (const [, clause = ""] of title.matchAll(/\[(MQTT-[\d.]+-\d+)\]/g)) found.add(clause);
    }
  }
  return found;
}

/** A statement that cannot be tested from outside says why after this. */
const reason = " -- not tested here: ";

describe("MQTT 3.1.1, coverage by clause", () => {
  it("lists every statement of the specification, 141 of them, each for client, server or both", () => {
    expect(Object.keys(clauses)).to.have.lengthOf(141);
    for (const [clause, text] of Object.entries(clauses)) {
      expect(clause).to.match(/^MQTT-\d+\.\d+\.\d+-\d+$/);
      expect(text, clause).to.match(/^(client|server|both); \S/);
    }
  });

  it("has a test for each that concerns a server, or a reason why not", () => {
    const known = titled();
    const missing = Object.entries(clauses)
      .filter(([, text]) => !text.startsWith("client;") && !text.includes(reason))
      .map(([clause]) => clause)
      .filter((clause) => !known.has(clause));
    expect(missing).to.deep.equal([]);
  });

  it("gives no reason where there is a test, and names no statement that does not exist", () => {
    const known = titled();
    const excused = Object.entries(clauses).filter(([, text]) => text.includes(reason));
    expect(excused.filter(([clause]) => known.has(clause))).to.deep.equal([]);
    expect([...known].filter((clause) => clauses[clause] === undefined)).to.deep.equal([]);
  });
});
