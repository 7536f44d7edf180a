/** What one connection may take of a turn, and of memory, before something is done about it. */

/**
 * Packets of one connection before the others have their turn. A chunk has so many only when they are small: without this, clients that do
 * nothing but ping (32,000 to a chunk, 32 chunks to a turn of libuv) keep everybody else waiting for seconds.
 */
export const turnPackets = 4096;
/** After so many of them, or so many copies for subscribers, it is asked whether the turn has had its time. */
export const askEvery = 64;
export const askCopies = 256;
/**
 * A chunk up to this size that is the first of its turn is mostly the only one: what came of it is written at once, without the way round the event
 * loop. Where there is more to do, it is one write more in a turn.
 */
export const lonelyBytes = 1024;
/** Beyond the outbox limit, which only acknowledgements and answers can pass. */
export const answersMax = 256 * 1024;
/** So much of a packet that has not all come yet is a sign of life, too: on a slow link one may take longer than the Keep Alive. */
export const livelyBytes = 1024;

/** How long the peer may take for the last bytes after we ended. */
export const lingerMs = 1000;
