/** Why reading of a connection stands still; bits, because several may hold at once. */
export const pause = { acks: 1, store: 2, outbox: 4, logIn: 8, turn: 16, crowd: 32 } as const;

/** It ends by what the client does or gives: reading its answers, a right password. */
const byClient = pause.outbox | pause.logIn;
const byDisk = pause.acks | pause.store;

/**
 * Whom what has come meanwhile is held for: the client, which could end it; the disk; or a crowd in front of the disk, from which this one stands back:
 * such have nothing, but for what a TLS socket had deciphered, the rest of a WebSocket's chunk and what is below one reads once more.
 */
export type HeldFor = "client" | "disk" | "crowd";

/** @param pauses but for `turn`, in which it is counted elsewhere */
export function heldFor(pauses: number): HeldFor {
  if ((pauses & byClient) !== 0) return "client";
  return (pauses & byDisk) !== 0 ? "disk" : "crowd";
}
