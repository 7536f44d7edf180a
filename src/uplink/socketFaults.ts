import { X509Certificate } from "node:crypto";
import { errnoOf, messageOf } from "../base/errors.ts";
import { type LinkFault, type LinkFaultCode, linkFault } from "../base/linkFaults.ts";
import type { TlsOptions } from "./options.ts";
import { printable } from "./texts.ts";

/** How far a connection has come. */
export type LinkPhase = "lookup" | "tcp" | "tls" | "connack" | "up";

/** What is known when a socket fails. */
export interface LinkContext {
  readonly phase: LinkPhase;
  readonly url: string;
  readonly tls: TlsOptions | undefined;
  /** As the machine believes: certificates are judged by it. */
  readonly wallMs: number;
}

const tcpCodes: Readonly<Record<string, LinkFaultCode>> = {
  ECONNREFUSED: "connection-refused",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  ENETDOWN: "unreachable",
  EHOSTDOWN: "unreachable",
  EADDRNOTAVAIL: "unreachable",
  EACCES: "unreachable", // a firewall of this machine
  EPERM: "unreachable",
  EINVAL: "unreachable", // an address of a link that has gone
  ETIMEDOUT: "connect-timeout",
};

/** What OpenSSL says of the other side's certificate (X509_V_ERR, as Node names them). */
const peerCodes: Readonly<Record<string, LinkFaultCode>> = {
  CERT_HAS_EXPIRED: "tls-expired",
  CERT_NOT_YET_VALID: "tls-not-yet-valid",
  ERR_TLS_CERT_ALTNAME_INVALID: "tls-wrong-name",
  HOSTNAME_MISMATCH: "tls-wrong-name",
  DEPTH_ZERO_SELF_SIGNED_CERT: "tls-not-trusted",
  SELF_SIGNED_CERT_IN_CHAIN: "tls-not-trusted",
  UNABLE_TO_GET_ISSUER_CERT: "tls-not-trusted",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "tls-not-trusted",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "tls-not-trusted",
  CERT_CHAIN_TOO_LONG: "tls-not-trusted",
  CERT_SIGNATURE_FAILURE: "tls-not-trusted",
  CERT_UNTRUSTED: "tls-not-trusted",
  CERT_REJECTED: "tls-not-trusted",
  CERT_REVOKED: "tls-not-trusted",
  INVALID_CA: "tls-not-trusted",
  INVALID_PURPOSE: "tls-not-trusted",
  PATH_LENGTH_EXCEEDED: "tls-not-trusted",
};

/** Alerts with which the other side refuses our certificate (RFC 8446 section 6.2), in OpenSSL's names. */
const ownRefused =
  /ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_REVOKED|CERTIFICATE_UNKNOWN|UNKNOWN_CA|ACCESS_DENIED|CERTIFICATE_REQUIRED)/;

/** Why a socket failed. */
export function socketFault(error: unknown, context: LinkContext): LinkFault {
  const { phase, url, wallMs } = context;
  const code = errnoOf(error);
  const words = printable(messageOf(error) || code || "the connection failed");
  if (phase === "lookup") return linkFault("dns-failed", `${hostOf(url)} cannot be looked up: ${words}`);
  const peer = peerCodes[code];
  if (peer !== undefined)
    return linkFault(peer, `the certificate of ${url} is not taken: ${words} (${clockText(wallMs)})`);
  if (/ALERT_CERTIFICATE_EXPIRED/.test(code)) return ownExpired(words, context);
  if (ownRefused.test(code)) return ownCertificate(context)?.fault ?? linkFault("tls-own-refused", `${url}: ${words}`);
  if (code.startsWith("ERR_SSL_") || code === "EPROTO") return linkFault("tls-failed", `no TLS with ${url}: ${words}`);
  if (phase === "tcp") return linkFault(tcpCodes[code] ?? "unreachable", `${url}: ${words}`);
  return endFault(words, context);
}

/** Why a connection ended that nobody gave a reason for. */
export function endFault(words: string, context: LinkContext): LinkFault {
  const { phase, url } = context;
  if (phase === "up") return linkFault("connection-lost", words);
  if (phase === "lookup" || phase === "tcp") return linkFault("unreachable", `${url}: ${words}`);
  // A broker that refuses our certificate says so in an alert, which a reset on the way may overtake.
  const own = ownCertificate(context);
  if (own?.fault !== undefined) return own.fault;
  if (phase === "tls") return linkFault("tls-failed", `${url} closed during the TLS handshake: ${words}`);
  const also = own === undefined ? "" : ", which may be how it refuses tls.cert";
  return linkFault("closed-at-connect", `${url} closed before it answered${also}: ${words}`);
}

/** Why nothing came within the time for a connection. @param ms that time */
export function timeoutFault(ms: number, { phase, url }: LinkContext): LinkFault {
  const within = `within ${ms / 1000} s`;
  if (phase === "lookup") return linkFault("dns-failed", `no answer about ${hostOf(url)} ${within}`);
  if (phase === "tcp") return linkFault("connect-timeout", `no connection to ${url} ${within}`);
  return linkFault("no-answer", `no answer from ${url} ${within}`);
}

function ownExpired(words: string, context: LinkContext): LinkFault {
  const own = ownCertificate(context);
  return own?.fault ?? linkFault("tls-own-expired", `the broker finds tls.cert expired: ${words}`);
}

/** Our certificate by our clock; undefined: there is none, or it cannot be read. `fault`: it is not valid now. */
function ownCertificate({ tls, wallMs }: LinkContext): { readonly fault: LinkFault | undefined } | undefined {
  if (tls?.cert === undefined) return undefined;
  try {
    const { validFrom, validTo } = new X509Certificate(tls.cert);
    const isValid = wallMs >= Date.parse(validFrom) && wallMs <= Date.parse(validTo);
    if (isValid) return { fault: undefined };
    const span = `tls.cert is valid from ${validFrom} to ${validTo}, and ${clockText(wallMs)}`;
    return { fault: linkFault("tls-own-expired", span) };
  } catch {
    return undefined;
  }
}

const clockText = (wallMs: number): string => `our clock says ${new Date(wallMs).toISOString()}`;

const hostOf = (url: string): string => new URL(url).hostname;
