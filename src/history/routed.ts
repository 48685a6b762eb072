/** A history over several: each channel's is in one of them. */
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Position } from "../protocol/position.ts";
import { claimKey } from "./claim_script.ts";
import {
  type Appended,
  type AppendOptions,
  type History,
  type HistoryLimits,
  type Idempotency,
  NOTHING_DONE,
  type OpenedRun,
  type OutgoingMessage,
  type Page,
  type PageOptions,
  type PageOutcome,
  type Run,
  type RunPage,
  type Send,
  type SinceOptions,
} from "./history.ts";
import { merge, type Portion, type RedisRuns } from "./redis_runs.ts";

/** A history that may have a part of the channels. */
export interface HistoryPart extends History {
  readonly runs: Pick<RedisRuns, "appendPortion" | "note">;
}

/** Which history has the messages of a channel. */
export interface HistoryRoutes {
  /** @throws {BrokerUnavailableError} when that is not known. */
  of(name: string): HistoryPart;
  /** Whether a portion of channels is all in one. */
  readonly isOne: boolean;
  /** How many there are. */
  readonly count: number;
  /** Does it where the channel's history is; once more where that turns out to be elsewhere. */
  there<T>(name: string, work: (history: HistoryPart) => Promise<T>): Promise<T>;
}

export class RoutedHistory implements History {
  readonly limits: HistoryLimits;
  readonly #routes: HistoryRoutes;
  readonly #onSetBack: (() => void)[] = [];

  constructor(limits: HistoryLimits, routes: HistoryRoutes) {
    this.limits = limits;
    this.#routes = routes;
  }

  get spread(): number {
    return this.#routes.isOne ? 1 : Math.max(1, this.#routes.count);
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

  openRun(...args: Parameters<History["openRun"]>): Promise<OpenedRun> {
    return this.#routes.there(args[0].channel, (history) => history.openRun(...args));
  }

  /** On several, each appends for those whose messages it has, all at the same time; then it is noted. */
  async appendPage(
    run: Run,
    page: RunPage,
    message: OutgoingMessage,
    options: PageOptions = {},
  ): Promise<PageOutcome> {
    const { channel } = run.name;
    if (this.#routes.isOne) return await this.#routes.of(channel).appendPage(run, page, message, options);
    const parts = new Map<HistoryPart, string[]>();
    const portions: Promise<Portion>[] = [];
    for (const name of page.channels) {
      try {
        const part = this.#routes.of(name);
        const channels = parts.get(part);
        if (channels) channels.push(name);
        else parts.set(part, [name]);
      } catch (reason) {
        if (!(reason instanceof BrokerUnavailableError)) throw reason;
        portions.push(Promise.resolve({ tally: NOTHING_DONE, left: [name], reason }));
      }
    }
    for (const [{ runs }, channels] of parts) portions.push(runs.appendPortion(channels, message, options));
    const done = merge(await Promise.all(portions));
    const outcome = await this.#routes.there(channel, ({ runs }) => runs.note(run, page, done));
    return outcome.outcome === "noted" && done.reason ? { ...outcome, reason: done.reason } : outcome;
  }

  leaveRun(run: Run): Promise<void> {
    return this.#routes.there(run.name.channel, (history) => history.leaveRun(run));
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

  left(channel: string, position: Position): void {
    try {
      this.#routes.of(channel).left?.(channel, position);
    } catch {
      // Where its history is nobody knows now: there nothing is remembered of it.
    }
  }

  onSetBack(listener: () => void): void {
    this.#onSetBack.push(listener);
  }

  /** One of the histories was set back. */
  setBack(): void {
    for (const listener of this.#onSetBack) listener();
  }
}
