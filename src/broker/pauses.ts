/** Why reading of a connection stands still; bits, because several may hold at once. */
export const pause = { acks: 1, store: 2, outbox: 4, logIn: 8, turn: 16, crowd: 32 } as const;

/** It ends by what the client does or gives: reading its answers, a right password. */
const byClient = pause.outbox | pause.logIn;
/** What has come meanwhile counts as held at a paused connection. Who waits for its turn is counted there; who stands back has nothing, but for what a TLS socket had read and a WebSocket takes all the same. */
const holding = byClient | pause.acks | pause.store;

export const isByClient = (pauses: number): boolean => (pauses & byClient) !== 0;
export const isHolding = (pauses: number): boolean => (pauses & holding) !== 0;
