import { isIPv6 } from "node:net";

/**
 * Whom an address stands for: an IPv4 address for itself, also when it comes mapped into IPv6; of an IPv6 address its /64, which one customer has
 * for himself. "local" where there is none (unix sockets).
 */
export function addressKey(address: string | undefined): string {
  if (address === undefined) return "local";
  const [bare = ""] = address.split("%"); // without the zone
  if (!isIPv6(bare)) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(bare);
  if (mapped !== null) return mapped[1] ?? bare;
  const [front = "", back] = bare.split("::");
  const groups = front === "" ? [] : front.split(":");
  const behind = back === undefined || back === "" ? [] : back.split(":");
  // A dotted quad at the end is two groups; those before the fourth are all that counts.
  const width = behind.length + (behind.at(-1)?.includes(".") === true ? 1 : 0);
  const whole =
    back === undefined ? groups : [...groups, ...Array(Math.max(0, 8 - groups.length - width)).fill("0"), ...behind];
  return `${whole
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":")}::/64`;
}
