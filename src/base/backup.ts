/** A copy of the store while it runs. */

export interface BackupRequest {
  /** Absolute. */
  readonly dir: string;
  /** Written into the manifest, for people. */
  readonly gateway: string;
  readonly version: string;
  /** Ends it and removes what was written. */
  readonly signal?: AbortSignal;
}

export interface BackupInfo {
  readonly dir: string;
  readonly files: number;
  readonly bytes: number;
  /** Of `bytes`: hard links, which take no room until the gateway frees its own name of the file. */
  readonly linkedBytes: number;
  /** Of `bytes`: the disk could not read them any more; zeros in the backup. */
  readonly unreadableBytes: number;
  /** Every record below this position is in it. */
  readonly position: number;
  readonly epoch: number;
  readonly ms: number;
}
