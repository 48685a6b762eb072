/**
 * Timers of one length that never fire, for what is to happen at once and not when its timer says so. No machine is too
 * slow for that, as it is for "within half a second".
 *
 *     using _held = new HeldTimers(1_000);
 */
export class HeldTimers implements Disposable {
  readonly #setTimeout = globalThis.setTimeout;

  /** @param ms Those that are set from now on for this long are held, in milliseconds and give or take one. */
  constructor(ms: number) {
    const setTimeout = this.#setTimeout;
    globalThis.setTimeout = ((callback: () => void, delayMs = 0, ...args: []) => {
      const id = setTimeout(callback, delayMs, ...args);
      if (Math.abs(delayMs - ms) <= 1) clearTimeout(id);
      return id;
    }) as typeof globalThis.setTimeout;
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.#setTimeout;
  }
}
