import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";

/** A connection's place among those that are allowed. */
export interface Place {
  /** Counts it for its address as well, once that is known. False: the address has too many; the refusal is counted. */
  from(address: string | undefined): boolean;
  /** Gives the place back; more than once does no harm. */
  leave(): void;
}

/**
 * maxConnections and maxConnectionsPerAddress over all listeners, from a connection's first moment to its socket's last: a handshake costs more
 * memory and work than a connection, and whoever never ends it would else be counted nowhere.
 */
export class Admission {
  readonly #limits: Pick<BrokerLimits, "maxConnections" | "maxConnectionsPerAddress">;
  readonly #metrics: BrokerMetrics;
  readonly #byAddress = new Map<string, number>();
  #total = 0;

  constructor(limits: Pick<BrokerLimits, "maxConnections" | "maxConnectionsPerAddress">, metrics: BrokerMetrics) {
    this.#limits = limits;
    this.#metrics = metrics;
  }

  /** Undefined: there is no room; the refusal is counted. */
  enter(): Place | undefined {
    if (this.#total >= this.#limits.maxConnections) {
      this.#metrics.refused("max-connections").value += 1;
      return undefined;
    }
    this.#total += 1;
    let counted: string | undefined;
    let left = false;
    return {
      from: (address) => {
        if (address === undefined || left) return !left;
        const others = this.#byAddress.get(address) ?? 0;
        if (others >= this.#limits.maxConnectionsPerAddress) {
          this.#metrics.refused("max-per-address").value += 1;
          return false;
        }
        this.#byAddress.set(address, others + 1);
        counted = address;
        return true;
      },
      leave: () => {
        if (left) return;
        left = true;
        this.#total -= 1;
        if (counted === undefined) return;
        const others = (this.#byAddress.get(counted) ?? 1) - 1;
        if (others > 0) this.#byAddress.set(counted, others);
        else this.#byAddress.delete(counted);
      },
    };
  }
}
