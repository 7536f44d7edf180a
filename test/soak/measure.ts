import { readdir, readFile } from "node:fs/promises";

export interface Footprint {
  readonly rssBytes: number;
  readonly descriptors: number;
}

/** What a process holds, as Linux tells it. Undefined elsewhere. */
export async function footprint(pid: number): Promise<Footprint | undefined> {
  if (process.platform !== "linux") return undefined;
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const rssBytes = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  return { rssBytes, descriptors: (await readdir(`/proc/${pid}/fd`)).length };
}

/** The least of some seconds: what is not in use has been given back by then. */
export async function atRest(pid: number, seconds: number): Promise<Footprint | undefined> {
  let least: Footprint | undefined;
  for (let at = 0; at < seconds * 4; at += 1) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    const now = await footprint(pid);
    if (now === undefined) return undefined;
    const { rssBytes = now.rssBytes, descriptors = now.descriptors } = least ?? {};
    least = { rssBytes: Math.min(rssBytes, now.rssBytes), descriptors: Math.min(descriptors, now.descriptors) };
  }
  return least;
}

/** Gauges of the broker that must be zero when nobody is there, as /metrics tells them. */
export async function gauges(url: string): Promise<Map<string, number>> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const [, name, value] = /^(tidegate_mqtt_[a-z_]+(?:\{[^}]*\})?) (\S+)$/.exec(line) ?? [];
    if (name !== undefined) found.set(name, Number(value));
  }
  return found;
}
