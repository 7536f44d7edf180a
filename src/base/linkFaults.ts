/** For what can lie in a file. */
const readAnew = "files are read anew for each attempt: tidegate queue resume or SIGHUP tries at once";

/**
 * Why a link to a cloud is not up, as a closed list. A code is a promise: status, /metrics, `$SYS` and tests name it, so it is never reused for
 * something else. The text says how to mend it. `slow`: trying again soon cannot help and may do harm (an account that is locked), so the pauses
 * are those for what a person has to mend.
 */
export const linkFaults = {
  "dns-failed": { mend: "check the host name in url, and this machine's DNS" },
  "connection-refused": { mend: "nothing listens there: check the port in url, and that the broker runs" },
  unreachable: { mend: "no way there: check the network, the route and the address in url" },
  "connect-timeout": { mend: "nothing answers at that address: check it, and firewalls on the way" },
  "no-answer": {
    mend: "the port accepts and says nothing: check that it is the broker's, with TLS where the url says mqtts",
  },
  "connection-lost": { mend: "the broker or the network ended it; nothing to mend if it is rare" },
  "closed-at-connect": {
    mend: "the broker closed without an answer: check port, mqtt or mqtts, version, and the broker's log",
  },
  "ping-timeout": { mend: "the link went silent (half-open): check the network; nothing to mend if it is rare" },
  "ack-timeout": {
    mend: "the broker answers pings and not this message: see its log, quotas and storage; it is sent again, and nothing is lost",
  },
  "bad-credentials": { mend: `set username and password, and restart the gateway (${readAnew})`, slow: true },
  "not-authorized": { mend: "check username and password, and the broker's access rules", slow: true },
  banned: { mend: "the broker has banned this client", slow: true },
  "client-id-refused": { mend: "set clientId, and restart the gateway", slow: true },
  "version-refused": { mend: "", slow: true },
  "cloud-busy": { mend: "it comes back by itself" },
  "rate-limited": { mend: "the broker finds us too often or too fast: see drain and backoff" },
  "use-another-server": {
    mend: "the broker names another one; it is not followed by itself: check it and set url",
    slow: true,
  },
  "connect-refused": { mend: "see the broker's log", slow: true },
  "session-taken-over": { mend: "give each gateway a clientId of its own" },
  disconnected: { mend: "see the broker's log" },
  "protocol-error": { mend: "this is a fault of the broker, or of something between: see its log" },
  "tls-expired": { mend: "renew the broker's certificate, or set this machine's clock", slow: true },
  // Not slow: a Pi without a clock chip starts in the past, and NTP mends it within minutes.
  "tls-not-yet-valid": { mend: "set this machine's clock, or look at the broker's certificate" },
  "tls-not-trusted": {
    mend: `set tls.ca to the authority of the broker's certificate (${readAnew})`,
    slow: true,
  },
  "tls-wrong-name": {
    mend: "use a name in url that the broker's certificate has, and restart the gateway",
    slow: true,
  },
  "tls-own-expired": { mend: `renew tls.cert (${readAnew}), or set this machine's clock`, slow: true },
  "tls-own-refused": {
    mend: `the broker does not take tls.cert: check it, its key and its authority (${readAnew})`,
    slow: true,
  },
  "tls-failed": { mend: "check that the port speaks TLS and that the versions fit", slow: true },
  "tls-files": {
    mend: `tls.ca, tls.cert or tls.key cannot be used: check the files (${readAnew})`,
    slow: true,
  },
  "commands-refused": { mend: "see the disk in tidegate status" },
  internal: { mend: "this is a fault of the gateway: please report it" },
} as const satisfies Readonly<Record<string, { readonly mend: string; readonly slow?: true }>>;

export type LinkFaultCode = keyof typeof linkFaults;

export interface LinkFault {
  readonly code: LinkFaultCode;
  /** What happened and how to mend it, for people; nothing secret, control characters of the other side taken out. */
  readonly text: string;
}

/** Whether only a person can mend it, so that the pauses are long. */
export const isSlow = (code: LinkFaultCode): boolean => "slow" in linkFaults[code];

/** `what; how to mend it`. Where there is no text for mending, `what` says it. */
export function linkFault(code: LinkFaultCode, what: string): LinkFault {
  const { mend } = linkFaults[code];
  return { code, text: mend === "" ? what : `${what}; ${mend}` };
}
