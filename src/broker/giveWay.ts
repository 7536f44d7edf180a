/** Messages that wait in the store for one session or shared group. */
export interface Hoard {
  /** Somebody is there to take them. */
  readonly online: boolean;
  readonly bytes: number;
  /** Drops its oldest that nobody was sent, counted. @returns bytes, 0 when there is nothing more to drop */
  giveWay(bytes: number): number;
}

/** So much in one go, before another one is the fattest. */
const stepBytes = 64 * 1024;

/** The store is full: the fattest drops its oldest, those that nobody takes first. @returns bytes */
export function giveWay(hoards: Iterable<Hoard>, bytes: number): number {
  const all = [...hoards];
  let released = 0;
  for (const online of [false, true]) {
    const fat = all.filter((hoard) => hoard.online === online).map((hoard) => ({ hoard, bytes: hoard.bytes }));
    while (fat.length > 0 && released < bytes) {
      const fattest = fat.reduce((most, one) => (one.bytes > most.bytes ? one : most));
      const given = fattest.hoard.giveWay(Math.min(stepBytes, bytes - released));
      if (given === 0) fat.splice(fat.indexOf(fattest), 1);
      fattest.bytes -= given;
      released += given;
    }
  }
  return released;
}
