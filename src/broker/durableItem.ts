import type { Message, Qos } from "../base/message.ts";
import type { Given } from "./givenMessages.ts";

/** A message that goes out from the store. */
export interface Item {
  readonly ordinal: number;
  readonly message: Message;
  readonly qos: Qos;
  readonly retain: boolean;
  readonly ids: readonly number[] | undefined;
  readonly acceptedAtMs: number;
  readonly group: number;
  /** A shared group gave it, and may have it back as long as it is not sent. */
  readonly given?: Given | undefined;
}

/** A reference's meta byte. @param tag 1-31: which shared group it came from (`ShareGroup.tag`); 0: none */
export const metaOf = (qos: Qos, retain: boolean, tag: number): number => qos | (retain ? 4 : 0) | (tag << 3);
