import { Worker } from "node:worker_threads";
import type { Clock, Timer } from "../../base/clock.ts";
import { type HashBy, type HashTask, hashInPool } from "../../base/passwords.ts";

/** An attacker's next try, or the next device of a plant that comes back, finds it still there. */
const idleMs = 10_000;

const entry = new URL("./hashThreadMain.mjs", import.meta.url); // the build puts it beside the bundle
/** Its heap holds a task and a hash; what scrypt itself takes is not in it. MiB. */
const resourceLimits = { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 1, stackSizeMb: 1 };

interface Running {
  readonly task: HashTask;
  readonly settled: (hash: Uint8Array | undefined) => void;
}

/**
 * Password hashes in a thread of its own, at the priority of the event loop (it starts as nice as that is) and not at that of libuv's pool: a hash
 * keeps a core for as long as a hundred syncs take. The thread takes some 10 MB, so it is there only while somebody logs in. One hash at a time.
 */
export class HashThread {
  readonly #clock: Clock;
  #worker: Worker | undefined;
  #running: Running | undefined;
  #idle: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Calls back once. Where the thread cannot start, or fails, libuv's pool does the work. */
  readonly hash: HashBy = (task, settled) => {
    this.#idle?.cancel();
    try {
      this.#worker ??= this.#start();
    } catch {
      hashInPool(task, settled); // no memory, or no more threads allowed
      return;
    }
    this.#running = { task, settled };
    // Of their own: a view would take all of its buffer with it, a chunk of somebody's socket.
    this.#worker.postMessage({ ...task, password: new Uint8Array(task.password), salt: new Uint8Array(task.salt) });
  };

  /** Ends the thread. What is being hashed is hashed to its end in the pool. */
  close(): void {
    this.#end();
  }

  /** Whether it has its thread. */
  get started(): boolean {
    return this.#worker !== undefined;
  }

  #start(): Worker {
    const worker = new Worker(entry, { resourceLimits, execArgv: [], trackUnmanagedFds: false });
    worker.unref();
    worker.on("message", (hash: Uint8Array) => this.#done(worker, hash));
    worker.on("error", () => {}); // "exit" follows
    worker.on("exit", () => this.#exited(worker));
    return worker;
  }

  #done(worker: Worker, hash: Uint8Array): void {
    if (worker !== this.#worker) return;
    const running = this.#running;
    this.#running = undefined;
    this.#idle = this.#clock.setTimer(idleMs, () => this.#end());
    running?.settled(hash);
  }

  #end(): void {
    this.#idle?.cancel();
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#exited(worker);
    void worker.terminate();
  }

  #exited(worker: Worker): void {
    if (worker !== this.#worker) return;
    this.#worker = undefined;
    const running = this.#running;
    this.#running = undefined;
    if (running !== undefined) hashInPool(running.task, running.settled);
  }
}
