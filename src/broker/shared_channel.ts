/** One channel of a shared connection: who listens to it, and what was sent to Redis about it. */
import type { Listener } from "./listener.ts";
import type { Held } from "./subscriptions.ts";

export class SharedChannel {
  readonly listeners = new Set<Listener>();
  /** What was asked on the connection that it was last asked for on: what is below says nothing of another one. */
  by: object | undefined;
  /** The last command sent for it; undefined also when Redis refused it. */
  sent: "subscribe" | "unsubscribe" | undefined;
  /** Answers that are due. */
  due = 0;
  /** It was among channels that Redis refused: it is asked for alone, so that it can't harm others. */
  isSuspect = false;
  /** Stands for the last time it was confirmed; another object each time. */
  held: Held | undefined;
  #waiters: ((refusal: string | undefined) => void)[] = [];

  constructor(readonly name: string) {}

  /**
   * It is confirmed, refused, or gone: waiters look again.
   * @param refusal Why Redis refused it.
   */
  settle(refusal?: string): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake(refusal);
  }

  /** Resolves when it is settled, in one way or the other: with the reason when it was refused. */
  settled(): Promise<string | undefined> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}
