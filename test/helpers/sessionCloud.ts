import { type CloudConnection, type CloudScript, FakeCloud, type SeenPacket } from "./fakeCloud.ts";

interface Outgoing {
  readonly payload: string;
  readonly topic: string;
  state: "waiting" | "sent" | "released" | "done";
  id: number;
}

/**
 * A cloud with a session that speaks QoS 2 both ways as the standard has it (4.3.3), delivering at PUBLISH, and that can be made to fall over before or
 * after each packet: `moment` is asked, and true closes the connection.
 */
export class SessionCloud {
  readonly fake: FakeCloud;
  /** Payloads that it took from the gateway, in order. */
  readonly taken: string[] = [];
  /** False: each connection finds no session. */
  keepsSession = true;
  /** Properties of CONNACK (MQTT 5). */
  connackProperties: Record<string, unknown> = {};
  moment: (what: string, payload: string) => boolean = () => false;
  /** PUBREC with this reason code instead of taking the message. */
  refuse: (payload: string) => number = () => 0;
  readonly commands: Outgoing[] = [];
  readonly #version: 4 | 5;
  readonly #held = new Map<number, string>();
  #hasSession = false;
  #lastId = 0;

  private constructor(version: 4 | 5, fake: FakeCloud) {
    this.#version = version;
    this.fake = fake;
  }

  static async open(version: 4 | 5): Promise<SessionCloud> {
    const script: CloudScript = {};
    const cloud = new SessionCloud(version, await FakeCloud.open(version, script));
    script.connect = (connection, packet) => cloud.#connect(connection, packet);
    script.publish = (connection, packet) => cloud.#publish(connection, packet);
    script.other = (connection, packet) => cloud.#other(connection, packet);
    return cloud;
  }

  get url(): string {
    return this.fake.url;
  }

  /** Identifiers that it holds of the gateway. */
  get held(): number[] {
    return [...this.#held.keys()];
  }

  /** Sends a command with QoS 2 when there is a connection. */
  command(topic: string, payload: string): void {
    this.commands.push({ topic, payload, state: "waiting", id: 0 });
    const connection = this.fake.last;
    if (connection !== undefined && !connection.closed && this.#hasSession) this.#next(connection);
  }

  /** All that it said is acknowledged to the end. */
  get idle(): boolean {
    return this.commands.every(({ state }) => state === "done");
  }

  loseSession(): void {
    this.#hasSession = false;
  }

  close(): Promise<void> {
    return this.fake.close();
  }

  #falls(connection: CloudConnection, what: string, payload: string): boolean {
    if (connection.closed || !this.moment(what, payload)) return false;
    connection.close();
    return true;
  }

  #connect(connection: CloudConnection, { clean }: SeenPacket): void {
    const sessionPresent = this.keepsSession && this.#hasSession && clean !== true;
    this.#hasSession = true;
    if (!sessionPresent) {
      this.#held.clear();
      // A session that is gone takes along what was under way; what was not sent yet comes as new.
      for (const one of this.commands) if (one.state === "sent" || one.state === "released") one.state = "done";
    }
    connection.connack({ sessionPresent, properties: this.connackProperties });
    for (const one of this.commands) {
      if (one.state === "sent") this.#send(connection, one, true);
      else if (one.state === "released") connection.send({ cmd: "pubrel", messageId: one.id });
    }
    this.#next(connection);
  }

  #next(connection: CloudConnection): void {
    for (const one of this.commands) {
      if (one.state !== "waiting") continue;
      do this.#lastId = (this.#lastId % 20) + 1;
      while (this.commands.some(({ id, state }) => id === this.#lastId && (state === "sent" || state === "released")));
      one.id = this.#lastId;
      one.state = "sent";
      this.#send(connection, one, false);
    }
  }

  #send(connection: CloudConnection, { topic, payload, id }: Outgoing, dup: boolean): void {
    connection.publish(topic, payload, { qos: 2, messageId: id, dup });
  }

  #publish(connection: CloudConnection, packet: SeenPacket): void {
    const { qos, messageId = 0 } = packet;
    const payload = String(packet.payload);
    if (this.#falls(connection, "before PUBLISH", payload)) return;
    if (qos !== 2) {
      this.taken.push(payload);
      if (qos === 1 && !this.#falls(connection, "before PUBACK", payload)) connection.puback(messageId);
      return;
    }
    const reasonCode = this.refuse(payload);
    if (reasonCode >= 0x80) {
      connection.send({ cmd: "pubrec", messageId, reasonCode });
      return;
    }
    if (!this.#held.has(messageId)) {
      this.#held.set(messageId, payload);
      this.taken.push(payload);
    }
    if (this.#falls(connection, "before PUBREC", payload)) return;
    connection.send({ cmd: "pubrec", messageId });
    this.#falls(connection, "after PUBREC", payload);
  }

  #other(connection: CloudConnection, { cmd, messageId = 0, reasonCode = 0 }: SeenPacket): void {
    const one = this.commands.find(({ id, state }) => id === messageId && (state === "sent" || state === "released"));
    if (cmd === "pubrel") {
      const payload = this.#held.get(messageId) ?? "";
      if (this.#falls(connection, "before PUBREL", payload)) return;
      const unknown = !this.#held.delete(messageId);
      if (this.#falls(connection, "before PUBCOMP", payload)) return;
      connection.send({ cmd: "pubcomp", messageId, ...(this.#version === 5 && unknown ? { reasonCode: 0x92 } : {}) });
    } else if (cmd === "pubrec" && one !== undefined) {
      if (this.#falls(connection, "command: before PUBREL", one.payload)) return;
      one.state = reasonCode >= 0x80 ? "done" : "released";
      if (one.state === "released") connection.send({ cmd: "pubrel", messageId });
    } else if (cmd === "pubcomp" && one !== undefined) {
      if (this.#falls(connection, "command: at PUBCOMP", one.payload)) return;
      one.state = "done";
    }
  }
}
