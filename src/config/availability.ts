/**
 * What the config may name and this version cannot do yet. `check` lists it, `run` refuses to start with it: never ignored in silence.
 * Whoever builds one of these deletes its line here.
 */
import { isLocal, parseAddress } from "./address.ts";
import type { ConfigNode, Reporter } from "./document.ts";

interface Unavailable {
  /** Of the value, `*` for any key or index. Found at whatever the file writes there. */
  readonly path: string;
  readonly what: string;
  /** Only for these values; without it for every value that is written. */
  readonly when?: (node: ConfigNode, root: ConfigNode) => boolean;
}

const is =
  (...values: unknown[]) =>
  (node: ConfigNode): boolean =>
    values.includes(node.scalar);

const scheme =
  (...schemes: string[]) =>
  ({ scalar }: ConfigNode): boolean =>
    typeof scalar === "string" && schemes.some((name) => scalar.toLowerCase().startsWith(`${name}://`));

const codecsToCome = ["csv", "senml", "msgpack"] as const;

/** Named without an entry of that name. */
const builtInToCome = (node: ConfigNode, root: ConfigNode): boolean =>
  is(...codecsToCome)(node) && root.get("codecs")?.get(String(node.scalar)) === undefined;

const table: readonly Unavailable[] = [
  { path: "codecs.*.type", what: "this codec", when: is(...codecsToCome, "protobuf") },
  { path: "sources.*.decode", what: "this codec", when: builtInToCome },
  { path: "sources.*.ack", what: "this codec", when: builtInToCome },
  { path: "sources.*.commands.encode", what: "this codec", when: builtInToCome },
  { path: "sources.*.framing.type", what: "this framing", when: is("length", "fixed", "gap", "markers") },
  { path: "sources.*.url", what: "CoAP over DTLS", when: scheme("coaps") },
  { path: "sources.*.listen", what: "CoAP over DTLS", when: scheme("coaps") },
  { path: "sources.*.psk", what: "CoAP over DTLS" },
  { path: "routes.*.steps.*.decode", what: "this codec", when: builtInToCome },
  { path: "routes.*.steps.*.map", what: "the step map" },
  { path: "routes.*.steps.*.validate", what: "the step validate" },
  { path: "routes.*.steps.*.deadband", what: "the step deadband" },
  { path: "http.listen", what: "HTTP for other machines", when: isRemoteHttp },
];

function isRemoteHttp({ scalar }: ConfigNode): boolean {
  const address = typeof scalar === "string" ? parseAddress(scalar, ["http"]) : "";
  return typeof address !== "string" && !isLocal(address);
}

/** Reports everything that the file uses and this version cannot do. */
export function findUnavailable(root: ConfigNode, report: Reporter): void {
  for (const { path, what, when } of table) {
    for (const node of root.match(path.split("."))) {
      if (when === undefined || when(node, root)) report.node(node, `not yet available: ${what}`);
    }
  }
}
