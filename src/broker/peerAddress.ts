import { isIPv4, isIPv6, SocketAddress } from "node:net";

const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/i;

/**
 * One spelling for one address, so that limits and rules see one peer: IPv4 that a dual-stack socket shows as ::ffff:1.2.3.4 is 1.2.3.4, and
 * IPv6 is in its short form. What is no address stays as it is.
 */
export function plainAddress(address: string): string {
  if (!address.includes(":")) return address; // IPv4: each connection asks, and a look at the whole takes longer
  const plain = mapped.exec(address)?.[1]; // as a dual-stack socket writes it
  if (plain !== undefined && isIPv4(plain)) return plain;
  if (!isIPv6(address)) return address;
  const short = address.includes("%") ? address : new SocketAddress({ address, family: "ipv6" }).address;
  return mapped.exec(short)?.[1] ?? short;
}
