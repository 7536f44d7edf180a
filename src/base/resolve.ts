import { promises as dns, lookup } from "node:dns";
import { isIP, type LookupFunction } from "node:net";

/**
 * Looks a host name up without blocking libuv's thread pool where that can be avoided: getaddrinfo holds one of its four threads for as long
 * as a dead name server takes to time out, and the journal's syncs need them. So DNS is asked by Node's own resolver, and only
 * names that it does not know (/etc/hosts, mDNS) go to getaddrinfo. An address is returned as it is.
 */
export async function resolveHost(host: string): Promise<{ address: string; family: 4 | 6 }> {
  const literal = isIP(host);
  if (literal !== 0) return { address: host, family: literal === 6 ? 6 : 4 };
  if (host === "localhost") return { address: "127.0.0.1", family: 4 };
  const four = await dns.resolve4(host).catch(() => []);
  if (four[0] !== undefined) return { address: four[0], family: 4 };
  const six = await dns.resolve6(host).catch(() => []);
  if (six[0] !== undefined) return { address: six[0], family: 6 };
  const found = await dns.lookup(host);
  return { address: found.address, family: found.family === 6 ? 6 : 4 };
}

/** `resolveHost` in the shape of net.connect's `lookup` option. */
export const lookupHost: LookupFunction = (host, options, callback) => {
  resolveHost(host).then(
    ({ address, family }) => {
      if (options.all) callback(null, [{ address, family }]);
      else callback(null, address, family);
    },
    () => lookup(host, options, callback), // says the error in getaddrinfo's own words
  );
};
