// Builds dist/: the program and firmware-sim as ESM bundles. Bundled because start-up from single files takes twice as long and 15 MB
// more on a Pi; native packages stay outside, they find their prebuilt binaries beside themselves.
import { chmodSync, copyFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");
const common = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node20.19",
  format: "esm",
  splitting: true,
  sourcemap: true,
  sourcesContent: false, // lines and names of the repository's files; their text is there
  legalComments: "none",
  // Half of the text, and all of it ASCII: V8 keeps a script as it is read, and a single letter beyond Latin-1 doubles that.
  minifyWhitespace: true,
  minifySyntax: true,
  charset: "ascii",
  logLevel: "warning",
  alias: { "readable-stream": "node:stream" }, // mqtt-packet's copy of what Node has
  external: [
    "serialport",
    "@serialport/*",
    "cbor-extract",
    "@lydell/node-pty",
    "aedes",
    "mqtt",
    "node-coap-client",
    "node-dtls-client",
  ],
  // CommonJS packages inside an ESM bundle still call require for node: modules.
  banner: {
    js: 'import { createRequire as tidegateCreateRequire } from "node:module";\nconst require = tidegateCreateRequire(import.meta.url);',
  },
};

rmSync(join(root, "dist"), { recursive: true, force: true });
await build({
  ...common,
  entryPoints: { main: "src/main.ts" },
  outdir: "dist",
});
await build({
  ...common,
  entryPoints: { sim: "firmware-sim/sim.ts", demo: "firmware-sim/demo.ts" },
  outdir: "dist/firmware-sim",
});
chmodSync(join(root, "dist/main.js"), 0o755);
copyFileSync(join(root, "src/broker/access/hashThreadMain.mjs"), join(root, "dist/hashThreadMain.mjs"));

// The config's JSON Schema, for editors, made of the definitions that check it.
const { outputFiles } = await build({
  ...common,
  splitting: false,
  sourcemap: false,
  write: false,
  entryPoints: ["src/config/schema.ts"],
});
const { configJsonSchema } = await import(
  `data:text/javascript;base64,${Buffer.from(outputFiles[0].text.replace(common.banner.js, "")).toString("base64")}`
);
writeFileSync(join(root, "dist/tidegate.schema.json"), `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
