import { existsSync } from "node:fs";
import { formatProblem, loadConfig } from "../config/load.ts";

/** Where a config is looked for when none is named. */
export const defaultConfigFile = "tidegate.yaml";

/** The one that was named, else the one that is here; undefined: neither. */
export const configFile = ({ config }: { readonly config?: string }): string | undefined =>
  config ?? (existsSync(defaultConfigFile) ? defaultConfigFile : undefined);

/**
 * `tidegate check`: says everything that is wrong with the config. Errors and what is not available yet go to `err`, the verdict to `out`.
 * @returns exit code: 0 valid (though perhaps not available in whole), 2 wrong
 */
export async function check(
  options: { config?: string },
  io: { out(line: string): void; err(line: string): void },
): Promise<number> {
  const path = configFile(options);
  const loaded = await loadConfig({ path, namedFiles: true });
  if (!loaded.ok) {
    for (const problem of loaded.problems) io.err(formatProblem(problem));
    return 2;
  }
  for (const problem of loaded.unavailable) io.err(formatProblem(problem));
  for (const { message, ...place } of loaded.warnings)
    io.err(formatProblem({ ...place, message: `warning: ${message}` }));
  if (path === undefined) io.out(`no ${defaultConfigFile} here: the defaults are used, and they are valid`);
  else if (loaded.unavailable.length === 0) io.out(`${path}: valid`);
  else io.out(`${path}: valid, but "tidegate run" refuses what is not yet available`);
  return 0;
}
