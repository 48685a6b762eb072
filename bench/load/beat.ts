/**
 * A finer clock than timers: those of Deno go off every two milliseconds, which would be most of the latency that is
 * measured here. A thread that sleeps a fraction of a millisecond at a time rings instead, at a tenth of a core.
 */

/** What the thread is told. */
export interface BeatOrder {
  /** Zero while it is to ring. */
  readonly cell: Int32Array;
  readonly everyMs: number;
}

export class Beat implements Disposable {
  readonly #worker: Worker;
  readonly #cell = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  #next = Promise.withResolvers<void>();

  constructor(everyMs: number) {
    this.#worker = new Worker(new URL("./beat_worker.ts", import.meta.url), { type: "module" });
    this.#worker.onmessage = () => {
      this.#next.resolve();
      this.#next = Promise.withResolvers();
    };
    this.#worker.postMessage({ cell: this.#cell, everyMs } satisfies BeatOrder);
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
