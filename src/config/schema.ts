/**
 * Every key of `tidegate.yaml`, its range and its default. Once parsed, sizes are numbers of bytes and durations numbers of milliseconds,
 * whatever the key is called; paths are absolute. Schemas are functions, made anew for each reading: kept, they would take 4 MB of a running gateway.
 */
import * as z from "zod";
import type { User } from "../base/passwords.ts";
import { access } from "./access.ts";
import { type CodecConfig, codecs } from "./codecs.ts";
import { section } from "./fields.ts";
import { http } from "./http.ts";
import { mqtt } from "./mqtt.ts";
import { routes } from "./routes.ts";
import { type CoapConfig, type CoapServerConfig, type SerialConfig, sources } from "./sources.ts";
import { deadLetters, gateway, storage } from "./storage.ts";
import { type UplinkConfig, uplinks } from "./uplinks.ts";

export const configSchema = () =>
  section({
    gateway: gateway().prefault({}),
    mqtt: mqtt().prefault({}),
    storage: storage().prefault({}),
    deadLetters: deadLetters().prefault({}),
    access: access().prefault({}),
    codecs: codecs().prefault({}),
    sources: sources().prefault([]),
    routes: routes().prefault([]),
    uplinks: uplinks().prefault([]),
    http: http().prefault({}),
  });

/** What the file says, before the defaults that depend on the machine or on other keys. */
export type WrittenConfig = z.output<ReturnType<typeof configSchema>>;

/** The whole config with every default put in. Durations in ms, sizes in bytes, paths absolute. */
export type Config = Omit<WrittenConfig, "gateway" | "storage" | "access" | "sources" | "uplinks"> & {
  readonly gateway: WrittenConfig["gateway"] & { id: string; dataDir: string };
  readonly storage: WrittenConfig["storage"] & { maxMessageBytes: number };
  /** `users`: as the users file had them when the config was read. */
  readonly access: WrittenConfig["access"] & { anonymous: boolean; users: readonly User[] };
  readonly sources: SourceConfig[];
  readonly uplinks: ResolvedUplink[];
};

export type SourceConfig = SerialConfig | ResolvedCoap | CoapServerConfig;
/** `observe` is false exactly when `every` is set. */
export type ResolvedCoap = CoapConfig & { observe: boolean };
/** `urls` holds `url` when that was given instead; `passwordFile` is where a `password` lies that is none here. */
export type ResolvedUplink = UplinkConfig & { clientId: string; passwordFile: string | undefined };
export type { CodecConfig };

/** The schema of the file as editors want it (JSON Schema draft 7), made of the same definitions that check it. */
export function configJsonSchema(): object {
  return {
    ...z.toJSONSchema(configSchema(), { io: "input", target: "draft-7" }),
    title: "tidegate.yaml",
    description: "Configuration of the Tidegate MQTT gateway",
  };
}
