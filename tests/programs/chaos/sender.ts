/** A backend that never gives up: sends as fast as asked, each message until it is accepted. */
import { pause, type World } from "./world.ts";

/** A sender waits before it tries again, twice as long each time. */
const RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;
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
  #count = 0;
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
    const n = ++this.#count;
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
    const { nodes, ledger } = this.#world;
    const triedMs = performance.now();
    let waitMs = RETRY_MS;
    for (let tries = 1; !this.#isAbandoned; tries++, waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
      const node = nodes[n % Math.max(1, nodes.length)];
      const sentMs = performance.now();
      try {
        const response = await fetch(new URL(`v1/users/${user}/messages`, node?.url), {
          method: "POST",
          body: String(n),
          headers: { "content-type": "application/json", "idempotency-key": `send-${n}` },
          signal: AbortSignal.timeout(SEND_TIMEOUT_MS),
        });
        const answeredMs = performance.now();
        const answer = await response.json();
        if (response.ok) {
          // With shared subscriptions those who hold a socket are counted: of one client there is one.
          const { epoch, seq, sockets = answer.nodes } = answer;
          ledger.accept({ user, n, epoch, seq, sockets, triedMs, sentMs, answeredMs, tries });
          return;
        }
        if (response.status !== 503) {
          ledger.violate(`A send was answered ${response.status}: ${answer.detail}`);
        }
      } catch {
        // The node is gone, or was killed while it answered.
      }
      this.retries++;
      await pause(waitMs * (0.5 + Math.random()));
    }
  }
}
