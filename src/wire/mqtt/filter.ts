import { topicFilterFault } from "../../base/topic.ts";
import { ProtocolError } from "./protocolError.ts";
import { reason } from "./reasonCodes.ts";

const sharePrefix = "$share/";

/** A filter of SUBSCRIBE or UNSUBSCRIBE taken apart (MQTT 5 section 4.8.2). */
export interface SharedFilter {
  /** Undefined for an ordinary subscription. */
  share: string | undefined;
  filter: string;
}

/** Takes `$share/NAME/FILTER` apart. For filters that `decodePacket` has let through. */
export function splitSharedFilter(filter: string): SharedFilter {
  if (!filter.startsWith(sharePrefix)) return { share: undefined, filter };
  const slash = filter.indexOf("/", sharePrefix.length);
  if (slash < 0) return { share: filter.slice(sharePrefix.length), filter: "" };
  return { share: filter.slice(sharePrefix.length, slash), filter: filter.slice(slash + 1) };
}

/** Whether a filter as sent, `$share/...` included, asks for a shared subscription. */
export function isShared(filter: string): boolean {
  return filter.startsWith(sharePrefix);
}

/** Null when a filter as sent may be subscribed to, else what is wrong with it. How many levels are allowed is the broker's to say. */
export function filterFault(sent: string): string | null {
  const { share, filter } = splitSharedFilter(sent);
  if (share !== undefined) {
    if (share === "") return "a share name must not be empty"; // [MQTT-4.8.2-1]
    if (share.includes("+") || share.includes("#")) return "a share name must not contain + or #"; // [MQTT-4.8.2-2]
    if (filter === "") return "a shared subscription needs a filter after its name"; // [MQTT-4.8.2-2]
  }
  return topicFilterFault(filter, Number.POSITIVE_INFINITY);
}

/** @throws ProtocolError 0x8f */
export function requireFilter(sent: string): string {
  const fault = filterFault(sent);
  if (fault !== null) throw new ProtocolError(reason.topicFilterInvalid, fault);
  return sent;
}
