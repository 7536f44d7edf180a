import type { BrokerMetrics } from "./metrics.ts";
import type { BrokerLimits } from "./options.ts";

/** Of one address; its text is kept once for all connections from there. */
interface Address {
  readonly text: string;
  connections: number;
}

/** A connection's place among those that are allowed. */
export class Place {
  readonly #admission: Admission;
  #address: Address | undefined;
  #left = false;

  constructor(admission: Admission) {
    this.#admission = admission;
  }

  get address(): string | undefined {
    return this.#address?.text;
  }

  /** Counts it for its address as well, once that is known. False: the address has too many; the refusal is counted. */
  from(address: string | undefined): boolean {
    if (address === undefined || this.#left) return !this.#left;
    this.#address = this.#admission.countAt(address);
    return this.#address !== undefined;
  }

  /** Gives the place back; more than once does no harm. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#admission.left(this.#address);
  }
}

/**
 * maxConnections and maxConnectionsPerAddress over all listeners, from a connection's first moment to its socket's last: a handshake costs more
 * memory and work than a connection, and whoever never ends it would else be counted nowhere.
 */
export class Admission {
  readonly #limits: Pick<BrokerLimits, "maxConnections" | "maxConnectionsPerAddress">;
  readonly #metrics: BrokerMetrics;
  readonly #byAddress = new Map<string, Address>();
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
    return new Place(this);
  }

  /** One more of an address. Undefined: it has too many; the refusal is counted. For places only. */
  countAt(text: string): Address | undefined {
    const known = this.#byAddress.get(text);
    if ((known?.connections ?? 0) >= this.#limits.maxConnectionsPerAddress) {
      this.#metrics.refused("max-per-address").value += 1;
      return undefined;
    }
    const address = known ?? { text, connections: 0 };
    if (known === undefined) this.#byAddress.set(text, address);
    address.connections += 1;
    return address;
  }

  /** A place is free again. For places only. */
  left(address: Address | undefined): void {
    this.#total -= 1;
    if (address === undefined) return;
    address.connections -= 1;
    if (address.connections === 0) this.#byAddress.delete(address.text);
  }
}
