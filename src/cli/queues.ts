/** `tidegate queue list|peek|dropped|pause|resume|purge` */
import type { Io } from "./backup.ts";
import { type CallOptions, withGateway, wrongUsage } from "./gatewayCall.ts";
import { payloadLine, type ShownMessage } from "./messageText.ts";
import { bytesText, counted, durationText, jsonText, plainText, table } from "./texts.ts";

/** As `/api/v1/queues` has it. */
interface Queue {
  readonly name: string;
  readonly state: string;
  readonly paused: boolean;
  readonly messages: number;
  readonly bytes: number;
  readonly inflight: number;
  readonly oldestAgeMs: number | null;
  readonly dropped: Readonly<Record<string, number>>;
}

interface Peeked extends ShownMessage {
  readonly seq: number;
  readonly priority: number;
  readonly inFlight: boolean;
}

const queuePath = (name: string): string => `/api/v1/queues/${encodeURIComponent(name)}`;

export function queueList(options: CallOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const queues = await call<readonly Queue[]>({ method: "GET", path: "/api/v1/queues" });
    if (options.json === true) io.out(jsonText(queues));
    else if (queues.length === 0) io.out("no uplinks, so no queues");
    else
      for (const line of table(
        ["UPLINK", "STATE", "WAITING", "SIZE", "OLDEST", "IN FLIGHT", "LEFT UNSENT"],
        queues.map(row),
      ))
        io.out(line);
    return 0;
  });
}

function row({ name, state, paused, messages, bytes, inflight, oldestAgeMs, dropped }: Queue): string[] {
  const lost = Object.entries(dropped).map(([reason, count]) => `${reason} ${count}`);
  return [
    ...[plainText(name, 60), paused ? `${state}, paused` : state, String(messages), bytesText(bytes)],
    ...[oldestAgeMs === null ? "-" : durationText(oldestAgeMs), String(inflight), lost.join(", ") || "-"],
  ];
}

export function queuePeek(name: string, options: CallOptions & { count?: string }, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const path = `${queuePath(name)}?limit=${encodeURIComponent(options.count ?? "10")}`;
    const peeked = await call<{ messages: readonly Peeked[]; more: boolean }>({ method: "GET", path });
    if (options.json === true) {
      io.out(jsonText(peeked));
      return 0;
    }
    if (peeked.messages.length === 0) io.out("nothing waits");
    const rows = peeked.messages.map(({ seq, priority, inFlight, taken, topic, payload, bytes }) => [
      ...[String(seq), String(priority), taken, inFlight ? "sent" : "waits", bytesText(bytes)],
      ...[plainText(topic, 60), payloadLine(payload)],
    ]);
    if (rows.length > 0)
      for (const line of table(["SEQ", "PRI", "TAKEN", "STATE", "SIZE", "TOPIC", "PAYLOAD"], rows)) io.out(line);
    if (peeked.more) io.out("more waits behind these");
    return 0;
  });
}

/** As `/api/v1/uplinks/NAME/dropped` has it. */
interface Dropped {
  readonly at: string;
  readonly reason: string;
  readonly rule: string;
  readonly messages: number;
  readonly topic: string | null;
}

export function queueDropped(name: string, options: CallOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const path = `/api/v1/uplinks/${encodeURIComponent(name)}/dropped`;
    const { dropped } = await call<{ dropped: readonly Dropped[] }>({ method: "GET", path });
    if (options.json === true) io.out(jsonText(dropped));
    else if (dropped.length === 0) io.out("nothing was dropped since the gateway started");
    else
      for (const line of table(
        ["WHEN", "REASON", "RULE", "MESSAGES", "TOPIC"],
        dropped.map(({ at, reason, rule, messages, topic }) => [
          ...[at, reason, plainText(rule, 60), String(messages)],
          topic === null ? "(together, unread)" : plainText(topic, 100),
        ]),
      ))
        io.out(line);
    return 0;
  });
}

export function queuePause(name: string, paused: boolean, options: CallOptions, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    const what = paused ? "pause" : "resume";
    await call({ method: "POST", path: `/api/v1/uplinks/${encodeURIComponent(name)}/${what}` });
    io.out(
      paused
        ? `${name} is paused: it stays connected and sends nothing, also after a restart; tidegate queue resume ${name}`
        : `${name} sends again`,
    );
    return 0;
  });
}

/** Without `--yes` it only says what would go: exit code 2. */
export function queuePurge(name: string, options: CallOptions & { yes?: boolean }, io: Io): Promise<number> {
  return withGateway(options, io, async (call) => {
    if (options.yes !== true) {
      const queues = await call<readonly Queue[]>({ method: "GET", path: "/api/v1/queues" });
      const queue = queues.find((one) => one.name === name);
      if (queue === undefined) throw new Error(`there is no uplink ${plainText(name, 100)}`);
      const what = `${counted(queue.messages, "message")} (${bytesText(queue.bytes)})`;
      return wrongUsage(io, `waiting for ${name}, and lost then: ${what}; run it again with --yes to purge them`);
    }
    const purged = await call<{ messages: number; bytes: number }>({
      method: "POST",
      path: `${queuePath(name)}/purge`,
    });
    io.out(`${counted(purged.messages, "message")} (${bytesText(purged.bytes)}) of ${name} purged`);
    return 0;
  });
}
