import { checkedText, duration, filePath, integer, oneOf, section, size } from "./fields.ts";

export const gateway = () =>
  section({
    id: checkedText("one topic level of at most 128 characters, without / + # { } $", gatewayIdFault)
      .optional()
      .describe("Default: the host name"),
    dataDir: filePath().optional().describe("Default: ./tidegate-data, or $STATE_DIRECTORY under systemd"),
    logLevel: oneOf("debug", "info", "warn", "error", "silent").prefault("info"),
  });

function gatewayIdFault(id: string): string | null {
  // It goes into topic templates: a brace would begin a placeholder there, $ a topic of the broker's own.
  return id.length > 128 || /[/+#{}$\p{Cc}\p{Cs}\u{10000}-\u{10ffff}]/u.test(id) ? "not one topic level" : null;
}

export const storage = () =>
  section({
    maxBytes: size(16 * 2 ** 20)
      .prefault("1 GiB")
      .describe("All durable state"),
    minFreeBytes: size(0).prefault("256 MiB").describe("Of the disk, left to others"),
    maxMessageBytes: size(1024, 268_435_460).optional().describe("Default: mqtt.limits.maxPacketSize"),
    commitWindow: duration(0, 10_000)
      .prefault("0ms")
      .describe("Wait this long to put more into one sync: less flash wear, more latency"),
  });

export const deadLetters = () =>
  section({
    maxMessages: integer(0, 10_000_000).prefault(10_000),
    maxBytes: size(0).prefault("64 MiB").describe("A quarter of storage.maxBytes at most"),
    maxAge: duration(1000).prefault("90d").describe("Since it failed last"),
  });

/** What dead letters may have of a store of so many bytes. */
export const lettersBytesMax = (storeBytes: number): number => Math.floor(storeBytes / 4);
