/** A history over several: each channel's is in one of them. */
import { claimKey } from "./claim_script.ts";
import type {
  Appended,
  AppendOptions,
  History,
  HistoryLimits,
  Idempotency,
  OutgoingMessage,
  Page,
  Send,
  SinceOptions,
} from "./history.ts";

/** Which history has the messages of a channel. */
export interface HistoryRoutes {
  /** @throws {BrokerUnavailableError} when that is not known. */
  of(name: string): History;
  /** Whether a portion of channels is all in one. */
  readonly isOne: boolean;
  /** Does it where the channel's history is; once more where that turns out to be elsewhere. */
  there<T>(name: string, work: (history: History) => Promise<T>): Promise<T>;
}

export class RoutedHistory implements History {
  readonly limits: HistoryLimits;
  readonly #routes: HistoryRoutes;
  readonly #onSetBack: (() => void)[] = [];

  constructor(limits: HistoryLimits, routes: HistoryRoutes) {
    this.limits = limits;
    this.#routes = routes;
  }

  append(channel: string, message: OutgoingMessage, options?: AppendOptions): Promise<Appended> {
    try {
      return this.#routes.of(channel).append(channel, message, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  appendToAll(
    channels: readonly string[],
    message: OutgoingMessage,
    options?: AppendOptions,
  ): Promise<PromiseSettledResult<Appended>[]> {
    if (this.#routes.isOne) return this.#routes.of(channels[0]!).appendToAll(channels, message, options);
    // Of a script all keys are in one slot, and those of many users seldom are.
    return Promise.allSettled(channels.map((channel) => this.append(channel, message, options)));
  }

  async appendEach(sends: readonly Send[]): Promise<PromiseSettledResult<Appended>[]> {
    const history = this.#routes.isOne ? this.#routes.of(sends[0]!.channel) : this;
    if (history !== this && history.appendEach) return await history.appendEach(sends);
    return await Promise.allSettled(
      sends.map(({ channel, message, options }) => this.append(channel, message, options)),
    );
  }

  claim(prefix: string, idempotency: Idempotency): Promise<boolean> {
    const name = claimKey(prefix, idempotency.key);
    return this.#routes.there(name, (history) => history.claim(prefix, idempotency));
  }

  release(prefix: string, idempotency: Idempotency): Promise<void> {
    const name = claimKey(prefix, idempotency.key);
    return this.#routes.there(name, (history) => history.release(prefix, idempotency));
  }

  since(channel: string, after: number | undefined, limit: number, options?: SinceOptions): Promise<Page> {
    return this.#routes.there(channel, (history) => history.since(channel, after, limit, options));
  }

  onSetBack(listener: () => void): void {
    this.#onSetBack.push(listener);
  }

  /** One of the histories was set back. */
  setBack(): void {
    for (const listener of this.#onSetBack) listener();
  }
}
