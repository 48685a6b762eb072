/**
 * Chance that can be repeated: a test that fails says its seed, and TEST_SEED=<seed> plays it again.
 */

export class Chance {
  #state: number;

  private constructor(seed: number) {
    this.#state = seed;
  }

  /** Runs the test body; when it fails, the error names the seed. */
  static async run(body: (chance: Chance) => Promise<void>): Promise<void> {
    const seed = Number(Deno.env.get("TEST_SEED") ?? crypto.getRandomValues(new Uint32Array(1))[0]);
    try {
      await body(new Chance(seed));
    } catch (cause) {
      throw new Error(`Failed with TEST_SEED=${seed}, which repeats it`, { cause });
    }
  }

  /** A whole number from 0 to `limit` - 1. */
  below(limit: number): number {
    // A linear congruential generator with the constants of Numerical Recipes; its high bits are good enough.
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor(this.#state / 2 ** 32 * limit);
  }

  /** Lets others run: for no time, some turns of the microtask queue, or up to three milliseconds. */
  async pause(): Promise<void> {
    switch (this.below(3)) {
      case 0:
        return;
      case 1:
        for (let turns = this.below(20); turns >= 0; turns--) await null;
        return;
      default: {
        const ms = this.below(4);
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    }
  }
}
