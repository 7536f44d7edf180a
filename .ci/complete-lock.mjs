// After `npm install` changed package-lock.json: puts in the optional packages of other platforms that the registry at hand did not have.
// npm leaves out of the lock file what it cannot find, and `npm ci` then refuses the lock file as incomplete, on every machine.
import { readFileSync, writeFileSync } from "node:fs";

const file = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(file, "utf8"));
const known = lock.packages;
const pick = (name, words) => words.find((word) => name.split(/[-/]/).includes(word));
for (const [parent, { optionalDependencies, dev }] of Object.entries(known)) {
  for (const [name, version] of Object.entries(optionalDependencies ?? {})) {
    if (parent === "" || known[`node_modules/${name}`] !== undefined || known[`${parent}/node_modules/${name}`] !== undefined) continue;
    const os = pick(name, ["android", "darwin", "linux", "win32", "freebsd"]);
    const cpu = pick(name, ["arm64", "arm", "x64", "ia32"]);
    if (os === undefined || !/^\d/.test(version)) throw new Error(`${name}@${version}: not a package of one platform`);
    known[`node_modules/${name}`] = {
      version,
      ...(cpu === undefined ? {} : { cpu: [cpu] }),
      ...(dev ? { dev: true } : {}),
      optional: true,
      os: [os],
    };
    console.log(`${name}@${version}`);
  }
}
lock.packages = Object.fromEntries(Object.entries(known).sort(([a], [b]) => (a < b ? -1 : 1)));
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
