/** Client libraries, each as a process of its own that takes commands and tells events as JSON lines: mqttJs.mjs, pahoPython.py. */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { keepOpen, type PeerProcess, startPeer } from "../../helpers/peers.ts";
import { until } from "../../helpers/wait.ts";
import {
  type Door,
  type Kit,
  type PublishOptions,
  type Seen,
  type SubscribeOptions,
  urlOf,
  type Version,
} from "./kit.ts";

/** A busy machine starts a process slowly. */
const answerMsMax = 30_000;

interface Event {
  readonly event: string;
  readonly [field: string]: unknown;
}

export interface ConnectOptions {
  readonly version: Version;
  readonly clientId?: string | undefined;
  readonly persistent?: boolean | undefined;
  /** Session expiry in seconds. */
  readonly expiry?: number;
  readonly will?: SubscribeOptions["will"];
  readonly receiveMaximum?: number;
  readonly topicAliasMaximum?: number;
}

/** One client library's process. */
export class ScriptedClient {
  readonly messages: Seen[] = [];
  readonly #events: Event[] = [];
  readonly #peer: PeerProcess;
  #failed: string | undefined;

  constructor(command: readonly string[]) {
    const [program = "", ...args] = command;
    this.#peer = startPeer(program, args, keepOpen);
    createInterface({ input: this.#peer.child.stdout ?? process.stdin }).on("line", (line) => this.#on(line));
  }

  /** @returns whether the session was there */
  async connect(door: Door, options: ConnectOptions): Promise<boolean> {
    const ca = door.scheme === "mqtts" || door.scheme === "wss" ? door.tls?.ca : undefined;
    const connected = await this.ask({ do: "connect", url: urlOf(door), ca, ...options }, "connected");
    return connected["sessionPresent"] === true;
  }

  /** @returns the SUBACK's codes */
  async subscribe(filter: string, qos: number): Promise<number[]> {
    return (await this.ask({ do: "subscribe", filter, qos }, "subscribed"))["codes"] as number[];
  }

  async publish(options: Omit<PublishOptions, "version">, payloads: readonly string[]): Promise<void> {
    await this.ask({ do: "publish", ...options, payloads }, "published");
  }

  /** Sends a command and waits for the event that answers it. */
  async ask(command: object, answer: string): Promise<Event> {
    this.#peer.child.stdin?.write(`${JSON.stringify(command)}\n`);
    const event = await until(
      `${answer}; ${this.#peer.output().slice(-500)}`,
      () => {
        if (this.#failed !== undefined) throw new Error(this.#failed);
        if (this.#peer.child.exitCode !== null) throw new Error(`it ended: ${this.#peer.output().slice(-2000)}`);
        return this.#events.find((each) => each.event === answer);
      },
      answerMsMax,
    );
    this.#events.splice(this.#events.indexOf(event), 1);
    return event;
  }

  async leave(): Promise<void> {
    this.#peer.child.stdin?.write(`${JSON.stringify({ do: "disconnect" })}\n`);
    await this.#peer.ended;
  }

  kill(): Promise<void> {
    return this.#peer.stop("SIGKILL");
  }

  #on(line: string): void {
    const event = JSON.parse(line) as Event;
    if (event.event === "message") this.messages.push(event as unknown as Seen);
    else if (event.event === "failed") this.#failed = String(event["why"]);
    else this.#events.push(event);
  }
}

/** Only what JSON carries; MQTT.js takes no undefined. */
function kit(name: string, needs: string, command: readonly string[], ordersProperties: boolean): Kit {
  return {
    ...{ name, needs: [needs], schemes: ["mqtt", "mqtts", "ws", "wss"], ordersProperties },
    ...{ keepsSessions: true, tellsFlags: true, properties: true, waits: false, readsOneFrame: [] },
    async subscribe(door, { filter, qos, ...options }) {
      const client = new ScriptedClient(command);
      const present = await client.connect(door, options);
      if (!present) await client.subscribe(filter, qos);
      return { seen: () => client.messages, leave: () => client.leave(), kill: () => client.kill() };
    },
    async publish(door, { version, ...options }, payloads) {
      const client = new ScriptedClient(command);
      await client.connect(door, { version });
      await client.publish(options, payloads);
      await client.leave();
    },
  };
}

export const mqttJsCommand = [process.execPath, join(import.meta.dirname, "mqttJs.mjs")] as const;
export const pahoPythonCommand = ["/usr/bin/python3", join(import.meta.dirname, "pahoPython.py")] as const;
export const mqttJs = kit("MQTT.js", "node", mqttJsCommand, false);
export const pahoPython = kit("python3-paho-mqtt", "python3-paho", pahoPythonCommand, true);
