/** What `openStore` has found and made, for the store itself. */
import type { RecoveryReport } from "../base/contracts.ts";
import type { KeptCheckpoint } from "./checkpoint.ts";
import type { ResolvedOptions } from "./options.ts";
import type { State } from "./state.ts";

export interface StoreParts {
  readonly options: ResolvedOptions;
  readonly state: State;
  readonly storeId: Buffer;
  readonly epoch: number;
  readonly storeMs: () => number;
  readonly from: { position: number; prevEnd: number; group: number; segment: number };
  readonly checkpoints: KeptCheckpoint[];
  readonly damagedCheckpoints: readonly number[];
  readonly nextCheckpoint: number;
  readonly recovery: RecoveryReport;
  readonly unlock: () => Promise<void>;
}
