/** While somebody copies the files of the folder, none of them may go. */
export class Holds {
  #count = 0;

  get any(): boolean {
    return this.#count > 0;
  }

  /** @returns the release, which may be called twice */
  take(): () => void {
    this.#count += 1;
    let held = true;
    return () => {
      if (held) this.#count -= 1;
      held = false;
    };
  }
}
