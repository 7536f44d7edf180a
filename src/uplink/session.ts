import type { Store } from "../base/contracts.ts";
import { messageOf } from "../base/errors.ts";
import type { Log } from "../base/log.ts";
import type { UplinkOptions } from "./options.ts";

const mapName = "uplink-session";
const leftMax = 64;

interface Known {
  /** Of the data folder. */
  readonly epoch: number;
  /** Where the present session was met: client id and url. More than one: brokers that share it. */
  readonly here: readonly string[];
  /** Where an older one may still be. */
  readonly left: readonly string[];
}

/**
 * Which session of the cloud our packet identifiers belong to, on record (`uplink-session`). "Session present" alone does not say it: a data folder may be
 * new or restored, and one of several `urls` may have kept a session from before the others had it. There, an identifier that the cloud still holds
 * would make it take our next QoS 2 message for one that it has, and lose it [MQTT-3.2.2-4].
 */
export class CloudSession {
  readonly #options: UplinkOptions;
  readonly #store: Pick<Store, "get" | "commit" | "epoch">;
  readonly #log: Log;
  #known: Known | undefined;

  /** @param isNew nothing was ever sent from this data folder */
  constructor(options: UplinkOptions, store: Pick<Store, "get" | "commit" | "epoch">, log: Log, isNew: boolean) {
    this.#options = options;
    this.#store = store;
    this.#log = log;
    this.#known = parse(store.get(mapName, options.name));
    // On record at once: at the next start it is not new any more, whether there was a cloud or not.
    if (this.#known === undefined && isNew) this.#record({ epoch: store.epoch, here: [], left: [] });
  }

  /** Why a session that the cloud may have kept there is none of ours; undefined: it is. */
  strangeness(url: string): string | undefined {
    const known = this.#known;
    // A folder from before there was this record has sent nothing with QoS 2.
    if (known === undefined) return undefined;
    if (known.epoch !== this.#store.epoch) return "this data folder was restored";
    if (known.here.length === 0) return "this data folder is new";
    if (known.here.includes(this.#place(url))) return undefined;
    if (known.left.includes(this.#place(url))) return "it is older than the one that was used since";
    const { urls } = this.#options;
    return urls.some((other) => known.here.includes(this.#place(other)))
      ? undefined // one of several brokers that share their sessions, or it will have none
      : "it belongs to another cloud or client id";
  }

  /** CONNACK came. */
  connected(url: string, sessionPresent: boolean): void {
    const place = this.#place(url);
    const { epoch } = this.#store;
    const before = this.#known?.epoch === epoch ? this.#known : { epoch, here: [], left: [] };
    if (sessionPresent && before.here.includes(place) && before === this.#known) return;
    const rest = before.left.filter((one) => one !== place);
    const here = sessionPresent ? [...before.here.filter((one) => one !== place), place] : [place];
    const left = sessionPresent ? rest : [...rest, ...before.here.filter((one) => one !== place)];
    this.#record({ epoch, here: here.slice(-leftMax), left: left.slice(-leftMax) });
  }

  #record(known: Known): void {
    const text = JSON.stringify(known);
    if (text === JSON.stringify(this.#known)) return;
    this.#known = known;
    try {
      this.#store.commit((txn) => txn.put(mapName, this.#options.name, Buffer.from(text)));
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, "the cloud's session could not be put on record");
    }
  }

  #place(url: string): string {
    return `${this.#options.clientId} ${url}`;
  }
}

function parse(value: Uint8Array | undefined): Known | undefined {
  if (value === undefined) return undefined;
  try {
    const { epoch, here, left } = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>;
    if (typeof epoch !== "number" || !isTexts(here) || !isTexts(left)) return undefined;
    return { epoch, here, left };
  } catch {
    return undefined;
  }
}

const isTexts = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((one) => typeof one === "string");
