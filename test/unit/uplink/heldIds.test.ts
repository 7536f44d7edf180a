import { expect } from "chai";
import type { Store, Txn } from "../../../src/base/contracts.ts";
import { HeldIds } from "../../../src/uplink/heldIds.ts";

/** One map of a store; `fails`: the disk takes nothing. */
class OneMap {
  readonly keys = new Map<string, Uint8Array>();
  fails = false;

  get store(): Pick<Store, "commit" | "entries"> {
    const commit = (write: (txn: Pick<Txn, "delete">) => void): { group: number } => {
      if (this.fails) throw new Error("disk full");
      write({ delete: (_, key) => void this.keys.delete(key) });
      return { group: 1 };
    };
    return { entries: () => this.keys, commit } as unknown as Pick<Store, "commit" | "entries">;
  }

  hold(held: HeldIds, packetId: number): void {
    this.keys.set(held.recordOf(packetId).key, new Uint8Array(0)); // with the message
    held.hold(packetId, 1);
  }
}

describe("uplink/held identifiers", () => {
  it("of a session that is gone leave the record later, when the disk could not take that at once", () => {
    for (const by of ["forget", "release"] as const) {
      const disk = new OneMap();
      const held = new HeldIds("cloud", disk.store);
      for (const packetId of [1, 2, 3]) disk.hold(held, packetId);
      disk.fails = true;
      expect(() => held.forget()).to.throw("disk full");
      expect(held.size).to.equal(0);
      disk.fails = false;
      disk.hold(held, 2); // of the new session
      disk.hold(held, 9);
      if (by === "release") expect(held.release(9)).to.equal(1);
      else held.forget();
      expect([...disk.keys.keys()]).to.deep.equal(by === "release" ? ["2"] : []);
      // A restart: a new message with an identifier of the old session would be passed over for ever.
      expect(new HeldIds("cloud", disk.store).groupOf(3)).to.equal(undefined);
    }
  });
});
