/** RFC 7252 section 4.8: the transmission parameters with their default values, in milliseconds. */
export const ackTimeoutMs = 2000;
export const ackRandomFactor = 1.5;
export const maxRetransmit = 4;
/** How long the receiver of a Confirmable message must know its message id (section 4.8.2). */
export const exchangeLifetimeMs = 247_000;
/** The same for a Non-confirmable one. */
export const nonLifetimeMs = 145_000;
/** When a sender gives up waiting for a Confirmable message's acknowledgement. */
export const maxTransmitWaitMs = 93_000;
/** What a response without Max-Age means, in seconds (section 5.10.5). */
export const maxAgeDefaultSeconds = 60;
