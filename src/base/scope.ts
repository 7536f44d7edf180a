/**
 * What was opened is closed in the reverse order, all of it, whatever fails on the way. Node 20 has no DisposableStack.
 */
export class Scope implements AsyncDisposable {
  #undo: Array<() => unknown> = [];

  /** Registers what undoes the step just taken. */
  defer(undo: () => unknown): void {
    this.#undo.push(undo);
  }

  /** Runs every undo step, last registered first. Errors are collected, thrown together at the end. Calling it twice is harmless. */
  async close(): Promise<void> {
    const errors: unknown[] = [];
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, "shutdown was not clean");
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
