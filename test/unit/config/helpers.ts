import { expect } from "chai";
import { type Config, formatProblem, type LoadOptions, loadConfig, type Problem } from "../../../src/config/load.ts";

/** The config that a text makes; fails with its problems when it makes none. */
export async function accepted(text: string, options: LoadOptions = {}): Promise<Config> {
  const result = await loadConfig({ text, env: {}, hostname: "host", ...options });
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join("\n"));
  return result.config;
}

export async function problemsOf(text: string, options: LoadOptions = {}): Promise<Problem[]> {
  const result = await loadConfig({ text, env: {}, hostname: "host", ...options });
  return result.ok ? [] : result.problems;
}

/** `LINE:COL path` of each problem. */
export const places = (problems: readonly Problem[]): string[] =>
  problems.map(({ line, column, path }) => `${line}:${column} ${path}`);

/** The text has this one problem; `message` is part of what it says. */
export async function refuses(text: string, path: string, message: string): Promise<void> {
  const problems = await problemsOf(text);
  expect(problems.map((problem) => problem.path)).to.deep.equal([path], problems.map(formatProblem).join("\n"));
  expect(problems[0]?.message).to.contain(message);
}
