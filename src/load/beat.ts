/**
 * A finer clock than timers: those of Deno go off every two milliseconds, which would be most of the latency that is
 * measured here. A thread that sleeps a fraction of a millisecond at a time rings instead, at a tenth of a core.
 */

/** The thread: sleeps and rings while the cell is zero. As text, since a compiled or bundled program has no files. */
const THREAD = `onmessage = ({ data: { cell, everyMs } }) => {
  while (Atomics.load(cell, 0) === 0) {
    Atomics.wait(cell, 0, 0, everyMs);
    postMessage(undefined);
  }
};`;

export class Beat implements Disposable {
  readonly #worker: Worker;
  readonly #cell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  #next = Promise.withResolvers<void>();

  constructor(everyMs: number) {
    this.#worker = new Worker(`data:text/javascript,${encodeURIComponent(THREAD)}`, { type: "module" });
    this.#worker.onmessage = () => {
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    };
    this.#worker.postMessage({ cell: this.#cell, everyMs });
  }

  /** Resolves at the next ring. */
  next(): Promise<void> {
    return this.#next.promise;
  }

  [Symbol.dispose](): void {
    // A thread that sleeps can't be terminated; one that has nothing more to do can.
    Atomics.store(this.#cell, 0, 1);
    Atomics.notify(this.#cell, 0);
    this.#worker.terminate();
  }
}
