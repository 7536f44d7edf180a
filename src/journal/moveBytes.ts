/** After a roll: what lanes wait for at or beyond `position` lies in another segment now. */
import { FieldError } from "./bytes.ts";
import { recordHeaderBytes, recordType } from "./format.ts";
import { MessageReader } from "./messageRecord.ts";
import type { Segment } from "./segments.ts";
import type { Tail } from "./tail.ts";

export function moveBytes(tail: Tail, from: readonly Segment[], to: Segment, position: number): void {
  const message = new MessageReader();
  for (const slice of tail.slices(position, tail.end)) {
    for (let at = 0; at < slice.length; ) {
      const length = slice.readUInt32LE(at);
      const type = slice[at + 8]!;
      if (type === recordType.message) {
        try {
          message.start(slice, at + recordHeaderBytes, at + length, slice[at + 9]!);
          while (message.nextTaker()) {
            const { lane, expiresAtMs } = message.taker;
            // Not durable, so nobody has taken it away from where the commit counted it.
            from
              .find((segment) => segment.parts.has(lane) && segment.parts.get(lane)!.last >= message.position)
              ?.remove(lane, 1, length);
            to.add(lane, message.position, length, message.acceptedAtMs, expiresAtMs);
          }
        } catch (error) {
          if (!(error instanceof FieldError)) throw error;
        }
      }
      at += length;
    }
  }
  for (const segment of from) {
    for (const part of segment.parts.values()) part.last = Math.min(part.last, segment.end - 1);
  }
}
