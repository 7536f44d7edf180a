import { X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { messageOf } from "../base/errors.ts";
import type { ListenerTls } from "./options.ts";

const dayMs = 24 * 3600 * 1000;
/** Certificates that are renewed by themselves are so a month before their end; what has less left was forgotten. */
const daysLeftMin = 30;
/** X.520 allows 64; more is nobody's name. */
const nameLengthMax = 256;

export interface ServerContexts {
  /** For clients that ask for no name, or for one that has no certificate of its own. */
  readonly fallback: SecureContextOptions;
  forName(name: string): SecureContext | undefined;
}

/** @throws Error when a certificate or key cannot be used */
export function serverContexts(tls: ListenerTls): ServerContexts {
  const { ca } = tls;
  const same: SecureContextOptions = { minVersion: "TLSv1.2", ...(ca === undefined ? {} : { ca }) };
  const byName = new Map<string, SecureContext>();
  for (const [name, { cert, key }] of Object.entries(tls.sni ?? {})) {
    try {
      byName.set(name.toLowerCase(), createSecureContext({ ...same, cert, key }));
    } catch (cause) {
      throw new Error(`sni: ${name}: ${messageOf(cause)}`, { cause });
    }
  }
  return {
    fallback: { ...same, cert: tls.cert, key: tls.key },
    forName: (name) => {
      const wanted = name.toLowerCase();
      return byName.get(wanted) ?? byName.get(wanted.replace(/^[^.]+/, "*")); // a wildcard stands for one label (RFC 6125 section 6.4.3)
    },
  };
}

interface Subject {
  readonly CN?: string | readonly string[] | undefined;
}

/**
 * The user that a verified certificate names: the common name of its subject. None when there are several, or one that no user name can be:
 * empty, with U+0000 or another control character (which a rule or a log would read otherwise than whoever signed it).
 */
export function certificateName(subject: Subject | undefined): string | undefined {
  const name = subject?.CN;
  if (typeof name !== "string" || name === "" || name.length > nameLengthMax) return undefined;
  return /[\p{Cc}\p{Cs}]/u.test(name) ? undefined : name;
}

/** What an operator should know about a listener's certificates. @param nowMs wall clock */
export function certificateWarnings(tls: ListenerTls, nowMs: number): string[] {
  const named = Object.entries(tls.sni ?? {}).map(([name, { cert }]) => [` for ${name}`, cert] as const);
  return [["", tls.cert] as const, ...named].flatMap(([whose, cert]) => {
    const warning = warningOf(new X509Certificate(cert), nowMs);
    return warning === undefined ? [] : [`the certificate${whose} ${warning}`];
  });
}

function warningOf({ validFrom, validTo }: X509Certificate, nowMs: number): string | undefined {
  const daysLeft = Math.floor((Date.parse(validTo) - nowMs) / dayMs);
  if (Date.parse(validTo) <= nowMs) return `has expired (${validTo}): clients refuse it`;
  if (Date.parse(validFrom) > nowMs) return `is not valid before ${validFrom}; is the clock right?`;
  return daysLeft < daysLeftMin ? `expires in ${daysLeft} days (${validTo})` : undefined;
}
