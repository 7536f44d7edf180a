import type { Clock } from "../base/clock.ts";
import type { StoredMessage } from "../base/contracts.ts";

/**
 * The store clock does not believe a long outage (a Pi's wall clock may be wrong), so what waits then only waits a little longer than it should. A command
 * of the cloud with an expiry is the other way round: it must rather be lost than be obeyed too late. One of an earlier run is therefore as old as either
 * clock says.
 * @param from position from which on messages are this run's
 */
export function agingCommands(
  clock: Clock,
  storeMs: () => number,
  from: number,
): (stored: StoredMessage) => StoredMessage {
  return (stored) => {
    const { message, position, acceptedAtMs, wallMs } = stored;
    if (position >= from || message.properties?.messageExpirySeconds === undefined) return stored;
    if (!message.source.startsWith("uplink:")) return stored;
    const ageMs = Math.max(storeMs() - acceptedAtMs, clock.wallMs() - wallMs);
    return { ...stored, acceptedAtMs: storeMs() - ageMs };
  };
}
