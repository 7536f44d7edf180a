import type { MessageProperties } from "../base/message.ts";

/** What marks a payload as JSON text (MQTT 5 sections 3.3.2.3.2 and 3.3.2.3.9). One object, shared by all such messages. */
export const jsonProperties: MessageProperties = Object.freeze({ payloadFormat: 1, contentType: "application/json" });

/** Compact JSON. `value` is a codec's, so it is plain JSON and of bounded depth. */
export function jsonPayload(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
