/**
 * Until something counts as never coming. It is no measure of anything: a machine that does other work besides may need seconds to start a process or to
 * work out a password's hash, and whoever is well waits no longer than it takes.
 */
export const comesMsMax = 30_000;

/** Waits until `holds` gives something truthy and returns it; fails with `what` after `msMax`. The condition is polled, the time is only a bound. */
export async function until<T>(
  what: string,
  holds: () => T | Promise<T>,
  msMax = comesMsMax,
): Promise<NonNullable<Exclude<T, false>>> {
  const deadline = performance.now() + msMax;
  for (;;) {
    const value = await holds();
    if (value) return value as NonNullable<Exclude<T, false>>;
    if (performance.now() > deadline) throw new Error(`not within ${msMax} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
