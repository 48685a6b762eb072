/**
 * A clock for upper bounds, which goes the slower the busier the machine is: each tick takes as long as a timer and then
 * a request that waits for nothing, made to the same service at the same time. What a busy machine does to the one it
 * does to the other.
 *
 *     await using clock = new BusyClock(() => service.fetch("/healthz"));
 *     await answer;
 *     assert(clock.ms < 1_000);
 */
const TICK_MS = 100;

export class BusyClock implements AsyncDisposable {
  #ticks = 0;
  #isOver = false;
  readonly #going: Promise<void>;

  /** @param ask A request that the service can answer at once. */
  constructor(ask: () => Promise<Response>) {
    this.#going = this.#go(ask);
  }

  /** Milliseconds since it was made, by its own measure: never more than by any other clock. */
  get ms(): number {
    return this.#ticks * TICK_MS;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    await this.#going;
  }

  async #go(ask: () => Promise<Response>): Promise<void> {
    while (!this.#isOver) {
      await new Promise((resolve) => setTimeout(resolve, TICK_MS));
      await (await ask()).body?.cancel();
      this.#ticks++;
    }
  }
}
