import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { build } from "esbuild";
import { type Mutant, mutants } from "./mutants.ts";

const root = join(import.meta.dirname, "..", "..");
const journal = join(root, "src", "journal");
/** A mutant that makes the store hang is noticed too, but late. */
const patienceMs = 60_000;

/** The crash model, or a test, over a journal with this fault in it, as one file: nothing is copied, so a run needs no tree of its own. */
async function bundle(mutant: Mutant, outfile: string): Promise<void> {
  const path = join(journal, mutant.file);
  const source = readFileSync(path, "utf8");
  expect(
    source.split(mutant.find).length - 1,
    `${mutant.name}: stale, its text is not in ${mutant.file} once`,
  ).to.equal(1);
  await build({
    entryPoints: [join(root, "test", "test" in mutant.by ? mutant.by.test : "crash/runSeeds.ts")],
    ...{ bundle: true, platform: "node", format: "esm", outfile, logLevel: "silent" },
    plugins: [
      {
        name: "mutant",
        setup: (made) =>
          made.onLoad({ filter: /\.ts$/ }, ({ path: loaded }) =>
            loaded === path ? { contents: source.replace(mutant.find, () => mutant.replace), loader: "ts" } : undefined,
          ),
      },
    ],
  });
}

/** What the seeds or the test said; undefined when all passed. */
function noticed(file: string, cwd: string, by: Mutant["by"]): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const mocha = join(root, "node_modules", "mocha", "bin", "mocha.js");
    const args =
      "test" in by ? [mocha, "--bail", "--reporter", "dot", "--grep", by.only, file] : [file, ...by.map(String)];
    const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (data: Buffer) => {
        said += data.toString();
      });
    const timer = setTimeout(() => {
      said += "hangs";
      child.kill("SIGKILL");
    }, patienceMs);
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve(code === 0 ? undefined : said.slice(0, 400));
    });
  });
}

const tell = process.env["TIDEGATE_MUTANTS"] === "tell";

describe("journal: mutants are noticed", () => {
  let folder: string;
  const running = new Map<string, Promise<string | undefined>>();

  before(async function () {
    this.timeout(60_000);
    folder = mkdtempSync(join(tmpdir(), "tidegate-mutants-"));
    // Two at a time, in the order of the table.
    const lanes = [Promise.resolve(), Promise.resolve()];
    mutants.forEach((mutant, index) => {
      const file = join(folder, `${index}.mjs`);
      const turn = lanes[index % lanes.length]!.then(async () => {
        await bundle(mutant, file);
        return await noticed(file, folder, mutant.by);
      });
      running.set(mutant.name, turn);
      lanes[index % lanes.length] = turn.then(
        () => undefined,
        () => undefined,
      );
    });
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (const { name, by } of mutants) {
    it(name, async function () {
      this.timeout(300_000);
      const said = await running.get(name);
      if (tell) process.stderr.write(`${name}: ${said}\n`);
      expect(said, `nothing noticed it in ${JSON.stringify(by)}`).to.be.a("string");
    });
  }
});
