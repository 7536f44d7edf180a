import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { expect } from "chai";

// Properties of the code itself: the house of src/ has one direction, rooms of a bounded size, and nothing left lying about.

const root = join(import.meta.dirname, "..", "..");
const src = join(root, "src");

const stages = ["journal", "broker", "sources", "transform", "uplink", "catalogue", "http"];
/** base <- { wire, config } <- { stages } <- gateway <- cli <- main; stages never import each other. */
const allowed = new Map<string, readonly string[]>([
  ["base", []],
  ["wire", ["base"]],
  ["config", ["base"]],
  ...stages.map((stage): [string, readonly string[]] => [stage, ["base", "wire"]]),
  ["stageOptions.ts", ["base", "wire", "config", ...stages]],
  ["gateway.ts", ["base", "wire", "config", "stageOptions.ts", ...stages]],
  ["cli", ["base", "config", "gateway.ts"]],
  ["main.ts", ["base", "cli"]],
]);

function sources(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
}

const roomOf = (file: string): string => file.split(sep)[0] ?? "";

describe("tidy", () => {
  it("imports point one way", () => {
    const wrong: string[] = [];
    for (const file of sources(src)) {
      const room = roomOf(file);
      const text = readFileSync(join(src, file), "utf8");
      for (const [, path = ""] of text.matchAll(/(?:from |import |import\()"(\.[^"]+)"/g)) {
        const target = roomOf(relative(src, join(src, file, "..", path)));
        const may = target === room || allowed.get(room)?.includes(target) === true;
        if (!may) wrong.push(`${file} -> ${path}`);
      }
    }
    expect(wrong).to.deep.equal([]);
  });

  it("every room of src is one that the design knows", () => {
    expect([...new Set(sources(src).map(roomOf))].filter((room) => !allowed.has(room))).to.deep.equal([]);
  });

  it("base imports node: builtins and itself only", () => {
    const wrong: string[] = [];
    for (const file of sources(join(src, "base"))) {
      const text = readFileSync(join(src, "base", file), "utf8");
      for (const [, path = ""] of text.matchAll(/(?:from |import\()"([^"]+)"/g))
        if (!path.startsWith("node:") && !path.startsWith("./")) wrong.push(`${file} -> ${path}`);
    }
    expect(wrong).to.deep.equal([]);
  });

  it("firmware-sim imports nothing from src", () => {
    const wrong = sources(join(root, "firmware-sim")).filter((file) =>
      /"(\.\.\/)+src\//.test(readFileSync(join(root, "firmware-sim", file), "utf8")),
    );
    expect(wrong).to.deep.equal([]);
  });

  it("no file over 400 lines, no function over 60", () => {
    const wrong: string[] = [];
    for (const folder of ["src", "firmware-sim"]) {
      for (const file of sources(join(root, folder))) {
        const lines = readFileSync(join(root, folder, file), "utf8").split("\n");
        if (lines.length > 401) wrong.push(`${folder}/${file}: ${lines.length - 1} lines`);
        for (const { name, length } of functions(lines))
          if (length > 60) wrong.push(`${folder}/${file}: ${name}: ${length}`);
      }
    }
    expect(wrong).to.deep.equal([]);
  });

  it("the top level is as the user drew it", () => {
    const drawn = ["package.json", "tsconfig.json", "src", "firmware-sim", "test", "systemd", "README.md"];
    const beside = [
      "package-lock.json",
      "LICENSE",
      "CHANGELOG.md",
      "node_modules",
      "dist",
      "coverage",
      "tidegate.yaml",
      "tidegate-data",
    ];
    const found = readdirSync(root).filter((name) => !name.startsWith("."));
    expect(found.filter((name) => !drawn.includes(name) && !beside.includes(name))).to.deep.equal([]);
    expect(drawn.filter((name) => !found.includes(name))).to.deep.equal([]);
  });

  it("nothing is switched off or left over", () => {
    const wrong: string[] = [];
    for (const folder of ["src", "firmware-sim", "test"]) {
      for (const file of sources(join(root, folder))) {
        if (file === join("unit", "tidy.test.ts")) continue;
        const text = readFileSync(join(root, folder, file), "utf8");
        if (/\b(describe|it)\.(only|skip)\(|\bTODO\b|\bFIXME\b|@ts-(ignore|nocheck|expect-error)|\bas any\b/.test(text))
          wrong.push(`${folder}/${file}`);
      }
    }
    expect(wrong).to.deep.equal([]);
  });
});

/**
 * Functions by indentation, which the formatter guarantees: a line that opens a block with `) {`, `): T {` or `=> {`, up to the line that
 * closes it at the same indentation. Blocks of if, for, class and the like are not functions.
 */
function functions(lines: readonly string[]): Array<{ name: string; length: number }> {
  const found: Array<{ name: string; length: number }> = [];
  lines.forEach((line, at) => {
    const opens = /^(\s*)(.*\)(: [^=]+)? \{|.*=> \{)$/.exec(line);
    if (opens === null || /^\s*(\} )?(if|else|for|while|switch|catch|do|try|class|return function)\b/.test(line))
      return;
    const indent = opens[1] ?? "";
    const end = lines.findIndex((other, index) => index > at && other.startsWith(`${indent}}`));
    if (end > at) found.push({ name: line.trim().slice(0, 60), length: end - at - 1 });
  });
  return found;
}
