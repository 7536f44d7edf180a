import { promises as dns, Resolver } from "node:dns";
import { isIP, type LookupFunction } from "node:net";

type Found = { readonly address: string; readonly family: 4 | 6 };

/** A name server that does not answer is asked so long, so often (the second time twice as long): /etc/hosts gets its turn before a connection's own time ends. */
const timeoutMs = 2000;
const tries = 2;

/**
 * How long getaddrinfo asks a name server (glibc's RES_OPTIONS): DNS was asked before, it is there for the other places that names are in. A thread
 * that hangs in it cannot be ended, and the process waits for it at its end: with a dead name server that was 5 s twice, for each of them.
 */
const lookupOptions = "timeout:1 attempts:1";

/** By host: who asks for a name that is being looked up gets that answer. As many as there are names in the config. */
const running = new Map<string, Promise<Found>>();
/** getaddrinfo runs one at a time: a dead name server would otherwise hold all threads of libuv's pool. */
let lastLookup: Promise<unknown> = Promise.resolve();

/**
 * Looks a host name up, anew each time, without blocking libuv's thread pool where that can be avoided: getaddrinfo holds one of its four threads for
 * as long as a dead name server takes to time out, and the journal's syncs need them. So DNS is asked by Node's own resolver, and only
 * names that it does not know (/etc/hosts, mDNS) go to getaddrinfo. An address is returned as it is; of several addresses any, so that a dead one
 * among them is not tried each time.
 */
export async function resolveHost(host: string): Promise<Found> {
  const literal = isIP(host);
  if (literal !== 0) return { address: host, family: literal === 6 ? 6 : 4 };
  if (host === "localhost") return { address: "127.0.0.1", family: 4 };
  let found = running.get(host);
  if (found === undefined) {
    found = ask(host).finally(() => running.delete(host));
    running.set(host, found);
  }
  return found;
}

async function ask(host: string): Promise<Found> {
  const [four, six] = await Promise.all([addresses(host, 4), addresses(host, 6)]);
  if (four.length > 0) return { address: any(four), family: 4 };
  if (six.length > 0) return { address: any(six), family: 6 };
  process.env["RES_OPTIONS"] ??= lookupOptions;
  const mine = lastLookup.then(() => dns.lookup(host));
  lastLookup = mine.catch(() => {});
  const { address, family } = await mine;
  return { address, family: family === 6 ? 6 : 4 };
}

function addresses(host: string, family: 4 | 6): Promise<readonly string[]> {
  // A new one each time: it reads /etc/resolv.conf, which changes when a modem or a cable comes and goes.
  const resolver = new Resolver({ timeout: timeoutMs, tries });
  return new Promise((resolve) => {
    const answered = (error: unknown, list: readonly string[] | undefined): void =>
      resolve(error || list === undefined ? [] : list);
    if (family === 4) resolver.resolve4(host, answered);
    else resolver.resolve6(host, answered);
  });
}

const any = (list: readonly string[]): string => list[Math.floor(Math.random() * list.length)] ?? "";

/** `resolveHost` in the shape of net.connect's `lookup` option. */
export const lookupHost: LookupFunction = (host, options, callback) => {
  resolveHost(host).then(
    ({ address, family }) => {
      if (options.all) callback(null, [{ address, family }]);
      else callback(null, address, family);
    },
    (error: NodeJS.ErrnoException) => callback(error, "", 0),
  );
};
