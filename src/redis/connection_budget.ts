/**
 * The connections that Redis still takes under its `maxclients`. A subscription that comes when none is
 * left is refused here and not by Redis, which would refuse commands of ours just as well.
 *
 * Several nodes ask the same Redis and know nothing of one another: so each takes only a part of what was left
 * when it asked, and then asks again.
 */
import type { Attempt } from "../async/attempt.ts";

/** What Redis says of its connections. */
export interface Clients {
  readonly connected: number;
  /** Infinity when Redis does not say, as before 6.2: then it refuses by itself. */
  readonly max: number;
}

/** An answer is good for so long. */
const FRESH_MS = 1_000;
/** As many nodes may take places at one time without taking one twice. */
const SHARES = 8;
/** Connections that subscriptions never take: for commands, and for the operators of Redis. */
const MIN_RESERVE = 16;
const RESERVE = 0.01;

export class ConnectionBudget {
  readonly #ask: () => Promise<Clients>;
  #asking: Promise<number> | undefined;
  #freshUntilMs = -Infinity;
  #share = 0;
  /** Connections that Redis will have and may not have counted yet. */
  #coming = 0;

  constructor(ask: () => Promise<Clients>) {
    this.#ask = ask;
  }

  /**
   * Takes a place. It counts as coming until `arrived`.
   * @returns Whether there was one.
   * @throws what asking throws, and the reason why the attempt was given up.
   */
  async take(attempt: Attempt): Promise<boolean> {
    while (this.#share < 1 || performance.now() > this.#freshUntilMs) {
      this.#asking ??= this.#look().finally(() => this.#asking = undefined);
      if (await attempt.step(this.#asking) < 1) return false;
    }
    this.#share--;
    this.#coming++;
    return true;
  }

  /** The connection is there, or will not come. */
  arrived(): void {
    this.#coming--;
  }

  /** So many connections broke and will come back; a negative number: are back. */
  expect(count: number): void {
    this.#coming += count;
  }

  /** @returns How many places are left. */
  async #look(): Promise<number> {
    const { connected, max } = await this.#ask();
    const left = Math.floor(max - connected - Math.max(MIN_RESERVE, max * RESERVE) - this.#coming);
    this.#share = Math.ceil(left / SHARES);
    this.#freshUntilMs = performance.now() + FRESH_MS;
    return left;
  }
}
