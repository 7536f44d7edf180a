import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";

/** Clause to `client|server|both; paraphrase`, and `; not from here: why` where no test in this folder can see it. */
const clauses = JSON.parse(readFileSync(join(import.meta.dirname, "clauses.json"), "utf8")) as Record<string, string>;
const folder = join(import.meta.dirname, "..");

/** Clauses that titles name, also where they stand in a table: `[MQTT-3.3.1-1]`, `[MQTT-3.1.2-24, -25]`. Comments do not count. */
function named(source: string): string[] {
  const found: string[] = [];
  for (const line of source.split("\n").filter((text) => !/^\s*(\/\/|\/?\*)/.test(text))) {
    for (const [list] of line.matchAll(/\[MQTT-[^\]]*\]/g)) {
      let section = "";
      for (const [, full, number] of list.matchAll(/(?:MQTT-(\d+\.\d+\.\d+))?-(\d+)/g)) {
        section = full ?? section;
        found.push(`MQTT-${section}-${number}`);
      }
    }
  }
  return found;
}

// Version 3.1.1 numbers other statements with the same numbers: its folder does not count.
const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter(
  (file) => file.endsWith(".test.ts") && !file.startsWith("v3"),
);
const inFives = files.filter((file) => file.startsWith("v5"));
const namedIn = (list: readonly string[]): Set<string> =>
  new Set(list.flatMap((file) => named(readFileSync(join(folder, file), "utf8"))));

describe("MQTT 5.0, clause by clause", () => {
  it("every numbered statement that concerns a server is named by a test, or says why not", () => {
    const tested = namedIn(inFives);
    const missing = Object.entries(clauses).filter(
      ([clause, text]) => !text.startsWith("client;") && !text.includes("; not from here: ") && !tested.has(clause),
    );
    expect(missing.map(([clause, text]) => `${clause} ${text}`)).to.deep.equal([]);
  });

  it("no test of this folder names a statement that there is not", () => {
    expect([...namedIn(inFives)].filter((clause) => clauses[clause] === undefined)).to.deep.equal([]);
  });

  it("the table says of each statement whom it concerns", () => {
    const wrong = Object.entries(clauses).filter(([, text]) => !/^(client|server|both); \S/.test(text));
    expect(wrong).to.deep.equal([]);
  });
});
