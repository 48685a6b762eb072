/** Looks for messages that were not confirmed in time, once a second, and when one may be due now. */
import { ticker } from "../async/ticker.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { UnackedStore, WatchedMessage } from "./unacked.ts";

const TICK_MS = 1_000;

export interface UnackedOptions {
  readonly store: UnackedStore;
  readonly log: Log;
  /** There is something new to be carried. */
  onEvent(): void;
}

export class Unacked {
  readonly #options: UnackedOptions;
  readonly #stopTicking: () => void;
  #telling: Promise<void> | undefined;
  #isWoken = false;
  #isClosed = false;
  #hasFailed = false;

  constructor(options: UnackedOptions) {
    this.#options = options;
    this.#stopTicking = ticker.every(TICK_MS, () => this.#wake());
  }

  /** As `UnackedStore`. */
  async watch(message: WatchedMessage, users: readonly string[]): Promise<void> {
    await this.#options.store.watch(message, users);
  }

  /** As `UnackedStore`. Never rejects: what is not noted is told without its number, and a little later. */
  async sent(message: WatchedMessage, users: readonly string[], seq?: number): Promise<void> {
    // Of many to a group it is known when they are due.
    if (seq === undefined && message.afterMs > 0) return;
    await this.#options.store.sent(message, users, seq).catch((error) => this.#failed(error));
    if (message.afterMs === 0) this.#wake();
  }

  /** As `UnackedStore`. Never rejects: what is not noted may be told. */
  async unwatch(token: string, users: readonly string[]): Promise<void> {
    await this.#options.store.unwatch(token, users).catch((error) => this.#failed(error));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stopTicking();
    await this.#telling;
  }

  #wake(): void {
    if (this.#isClosed) return;
    this.#isWoken = true;
    this.#telling ??= this.#tell().finally(() => this.#telling = undefined);
  }

  async #tell(): Promise<void> {
    const { store, onEvent } = this.#options;
    try {
      while (this.#isWoken && !this.#isClosed) {
        this.#isWoken = false;
        if (!await store.tellUnacked()) continue;
        onEvent();
        this.#isWoken = true;
      }
      this.#hasFailed = false;
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#options.log.warn("unacknowledged messages not noted", { reason: messageOf(error) });
  }
}
