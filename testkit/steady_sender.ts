/**
 * A backend that sends without rest, over HTTP and as the documentation says: every message with an idempotency key,
 * and again with the same key until somebody answers 2xx. What was answered so is accepted, and is to be accounted for.
 */
import type { Accepted } from "./follower.ts";

export interface SteadySenderOptions {
  readonly users: readonly string[];
  /** Which service to ask next; may name one that is down. */
  readonly url: () => string;
  /** Whose certificates it trusts. */
  readonly client?: Deno.HttpClient;
  /** @default 150 */
  readonly perSecond?: number;
  /** The JSON value that is sent as the nth message. @default its number */
  readonly body?: (n: number) => string;
}

const RETRY_MS = 20;
const ANSWER_MS = 10_000;

export class SteadySender implements AsyncDisposable {
  /** What was accepted, by user, in the order of the sends. */
  readonly accepted: ReadonlyMap<string, Accepted[]>;
  /** Attempts that failed or were refused. */
  failures = 0;
  /** What became of the last of them: an answer, or an error. */
  lastFailure: unknown;
  readonly #options: SteadySenderOptions;
  readonly #sends = new Set<Promise<void>>();
  readonly #timer: ReturnType<typeof setInterval>;
  #count = 0;
  #hasEnded = false;

  constructor(options: SteadySenderOptions) {
    const { users, perSecond = 150 } = options;
    this.#options = options;
    this.accepted = new Map(users.map((user) => [user, []]));
    this.#timer = setInterval(() => {
      const user = users[this.#count % users.length]!;
      const sending = this.#send(user, ++this.#count).finally(() => this.#sends.delete(sending));
      this.#sends.add(sending);
    }, 1_000 / perSecond);
  }

  /** Messages accepted so far. */
  get total(): number {
    return this.accepted.values().reduce((sum, { length }) => sum + length, 0);
  }

  /** Sends nothing new, and resolves when all that was begun is accepted. */
  async end(): Promise<void> {
    clearInterval(this.#timer);
    await Promise.all(this.#sends);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#hasEnded = true;
    await this.end();
  }

  async #send(user: string, n: number): Promise<void> {
    const key = `${n}`;
    while (!this.#hasEnded) {
      try {
        const response = await fetch(new URL(`v1/users/${user}/messages`, this.#options.url()), {
          method: "POST",
          headers: { "content-type": "application/json", "idempotency-key": key },
          body: this.#options.body?.(n) ?? `${n}`,
          ...(this.#options.client && { client: this.#options.client }),
          signal: AbortSignal.timeout(ANSWER_MS),
        });
        const answer = await response.text();
        if (response.ok) {
          const { id, epoch, seq } = JSON.parse(answer);
          this.accepted.get(user)!.push({ id, epoch, seq });
          return;
        }
        this.lastFailure = `${response.status}: ${answer}`;
      } catch (error) {
        // Nobody there, or hung up on: the next one is asked.
        this.lastFailure = error;
      }
      this.failures++;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
