import { isAbsolute, resolve } from "node:path";
import type { WrittenConfig } from "./schema.ts";
import { usbPath } from "./sources.ts";

/** Makes every path of the config absolute, in place. @param folder the config file's */
export function makePathsAbsolute(config: WrittenConfig, folder: string): void {
  const absolute = (path: string): string => (isAbsolute(path) ? path : resolve(folder, path));
  const each = <Key extends string>(
    holder: { [key in Key]?: string | undefined } | undefined,
    ...keys: Key[]
  ): void => {
    for (const key of keys) {
      const path = holder?.[key];
      if (holder !== undefined && path !== undefined) holder[key] = absolute(path);
    }
  };
  each(config.gateway, "dataDir");
  each(config.access, "usersFile");
  for (const listener of config.mqtt.listeners) {
    if (listener.url.startsWith("unix://")) listener.url = `unix://${absolute(listener.url.slice("unix://".length))}`;
    each(listener.tls, "cert", "key", "ca");
    for (const certificate of Object.values(listener.tls?.sni ?? {})) each(certificate, "cert", "key");
  }
  for (const codec of Object.values(config.codecs)) if (codec.type === "protobuf") each(codec, "schema");
  for (const source of config.sources) if (source.type === "serial" && !usbPath.test(source.path)) each(source, "path");
  for (const route of config.routes) for (const step of route.steps) each(step, "validate");
  for (const uplink of config.uplinks) each(uplink.tls, "ca", "cert", "key");
}
