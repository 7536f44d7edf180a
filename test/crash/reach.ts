/** How often each thing that the model is there for really happened: a model that never frees a segment proves nothing about freeing. */
import type { Log } from "../../src/base/log.ts";

/** What 500 seeds must have met, by the names that are counted. */
export const reached: readonly string[] = [
  ...[
    "commits",
    "commits that threw",
    "messages appended by themselves",
    "rewinds",
    "settled",
    "dropped for want of room",
    "reads along",
    "quiet seconds",
    "links up",
    "backlog after fresh",
    "groups of many commits",
    "disturbed: a slow sync fails",
  ],
  ...["clean closes", "failed", "stopped while starting", "all given back"],
  ...["rename ckpt", "create seg", "unlink seg", "journal: write failed, new segment", "journal: failed"],
  ...[
    "journal: checkpoint failed, the last one stays",
    "newest checkpoint rotted",
    "journal: segment header is damaged",
    "journal: checkpoint is damaged, using the other one",
  ],
  ...["journal: segments merged", "rename seg", "truncate spare", "truncate seg"],
  ...["torn groups cut", "whole unsynced groups kept", "commits lost that nobody was told of"],
  ...[
    "write EIO",
    "write ENOSPC",
    "write short",
    "datasync EIO",
    "rename EIO",
    "syncDir EIO",
    "unlink EIO",
    "create EMFILE",
  ],
  ...[
    "write stop",
    "datasync stop",
    "create stop",
    "rename stop",
    "syncDir stop",
    "unlink stop",
    "open stop",
    "read stop",
  ],
  ...["bit flipped in a segment", "bit flipped in a checkpoint", "one record lost to a flipped bit"],
];

export class Reach {
  readonly counts = new Map<string, number>();
  readonly told: string[] = [];

  count(what: string, by = 1): void {
    if (by > 0) this.counts.set(what, (this.counts.get(what) ?? 0) + by);
  }

  /** For whoever looks for the cause: what happened last. */
  tell(what: string): void {
    this.told.push(what);
    if (this.told.length > 400) this.told.splice(0, 200);
  }

  /** Counts what a store logs; the rest of a log is of no use here. */
  log(): Log {
    const line = (fields: unknown, message: string): void => {
      this.count(message);
      this.tell(`${message} ${JSON.stringify(fields)}`);
    };
    const log: Log = { debug: line, info: line, warn: line, error: line, child: () => log };
    return log;
  }

  /** Counts what a life did to the files. @param log of `FaultyFiles`, since the store was open */
  files(log: readonly string[]): void {
    if (log.length > 0)
      this.tell(`files: ${log.filter((line) => !line.startsWith("read") && !line.startsWith("open")).join(", ")}`);
    for (const line of log) {
      const [operation, name, fault] = line.split(" ");
      if (fault !== undefined) this.count(`${operation} ${fault}`);
      else if (operation !== "write" && operation !== "read" && operation !== "datasync" && operation !== "open")
        this.count(`${operation} ${name!.split("-", 1)[0]}`);
    }
  }

  toString(): string {
    return [...this.counts]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, count]) => `${String(count).padStart(8)} ${what}`)
      .join("\n");
  }
}
