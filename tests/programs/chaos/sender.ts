/** A backend that never gives up: sends as fast as asked, each message until it is accepted. */
import { insist } from "./insist.ts";
import { pause, type World } from "./world.ts";

/** Sends under way at one time, in seconds of the rate: a sender without a limit would drown in its own retries. */
const MAX_OPEN_S = 3;
const SEND_TIMEOUT_MS = 8_000;
/** One in so many sends goes to somebody who has no client. */
const ABSENT_ONE_IN = 20;

export interface SenderOptions {
  readonly users: readonly string[];
  /** Users who have no client. */
  readonly absent: readonly string[];
  /** Messages a second. */
  readonly rate: number;
}

export class Sender {
  readonly #world: World;
  readonly #options: SenderOptions;
  readonly #open = new Set<Promise<void>>();
  #isStopped = false;
  #isAbandoned = false;
  retries = 0;

  constructor(world: World, options: SenderOptions) {
    this.#world = world;
    this.#options = options;
  }

  /** Resolves when it was stopped, and each send is accepted. */
  async run(): Promise<void> {
    const { rate } = this.#options;
    let sentMs = performance.now();
    while (!this.#isStopped) {
      // What is due is sent, however long the answers take; what does not fit under the limit is not made up for.
      const nowMs = performance.now();
      for (; sentMs < nowMs; sentMs += 1_000 / rate) {
        if (this.#open.size < MAX_OPEN_S * rate) this.send(this.#anybody());
      }
      await pause(10);
    }
    await Promise.all(this.#open);
  }

  /** @returns The number of the send. */
  send(user: string): number {
    const n = this.#world.ledger.number();
    const sending = this.#deliver(user, n).finally(() => this.#open.delete(sending));
    this.#open.add(sending);
    return n;
  }

  /** Resolves when everything that was sent is accepted or given up. */
  async settled(): Promise<void> {
    await Promise.all(this.#open);
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** Gives up what is not accepted yet. */
  abandon(): void {
    this.#isStopped = this.#isAbandoned = true;
  }

  #anybody(): string {
    const { users, absent } = this.#options;
    const { chance } = this.#world;
    const from = absent.length > 0 && chance.below(ABSENT_ONE_IN) === 0 ? absent : users;
    return from[chance.below(from.length)]!;
  }

  async #deliver(user: string, n: number): Promise<void> {
    const taken = await insist(this.#world, {
      ...{ n, path: `v1/users/${user}/messages`, timeoutMs: SEND_TIMEOUT_MS },
      isGivenUp: () => this.#isAbandoned,
      onRetry: () => this.retries++,
    });
    if (!taken) return;
    // With shared subscriptions those who hold a socket are counted: of one client there is one.
    const { answer: { epoch, seq, nodes, sockets = nodes }, ...sent } = taken;
    this.#world.ledger.accept({ user, n, epoch, seq, sockets, ...sent });
  }
}
