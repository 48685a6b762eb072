/** One send of which it is told who has not confirmed it in time: noted before it goes out, and cleared when it did not. */
import type { UnackedStore, WatchedMessage } from "../events/unacked.ts";
import { BrokerUnavailableError, InvalidMessageError } from "../protocol/errors.ts";
import { readTraceParent } from "../protocol/trace_parent.ts";
import { nothingSent } from "./send.ts";

/** Where it is noted. */
export type UnackedBook = Pick<UnackedStore, "watch" | "sent" | "unwatch">;

/** Longest time, in milliseconds. */
export const MAX_UNACKED_MS = 24 * 3_600_000;

export class UnackedSend {
  readonly token: string = crypto.randomUUID();
  readonly ts: number = Date.now();
  readonly #book: UnackedBook;
  readonly #group: string | undefined;
  readonly #traceparent: string | undefined;
  readonly #afterMs: number;

  /** @throws {InvalidMessageError} when nobody is told, or confirmations can't be told apart. */
  constructor(
    book: UnackedBook | undefined,
    { unackedMs, group, keepsHistory, traceparent }: {
      unackedMs: number;
      keepsHistory: boolean;
      group?: string | undefined;
      traceparent?: string | undefined;
    },
  ) {
    if (!book) {
      throw new InvalidMessageError(
        "Nobody is told what was not acknowledged: set USERWIRE_WEBHOOK_URL, and name unacked in USERWIRE_WEBHOOK_EVENTS",
      );
    }
    if (!keepsHistory) {
      throw new InvalidMessageError(
        "To be told what was not acknowledged needs a history: set USERWIRE_HISTORY above 0",
      );
    }
    if (!(unackedMs >= 0 && unackedMs <= MAX_UNACKED_MS)) {
      throw new InvalidMessageError("A message can be told to be unacknowledged after 0 to 86400 seconds");
    }
    this.#book = book;
    this.#group = group;
    this.#traceparent = traceparent === undefined ? undefined : readTraceParent(traceparent);
    this.#afterMs = Math.round(unackedMs);
  }

  /**
   * Sends it to these users.
   * @param id Of the message.
   * @param send @returns Its number, where there is one user; or "not sent".
   * @throws {BrokerUnavailableError} and what `send` throws.
   */
  async around<Result>(
    id: string,
    users: readonly string[],
    send: () => Promise<Result>,
    outcomeOf: (result: Result) => { seq?: number | undefined } | "not sent",
  ): Promise<Result> {
    const message: WatchedMessage = {
      ...{ token: this.token, id, ts: this.ts, afterMs: this.#afterMs },
      group: this.#group,
      traceparent: this.#traceparent,
    };
    await this.#book.watch(message, users).catch(nothingSent);
    let result: Result;
    try {
      result = await send();
    } catch (error) {
      // What may have been sent may have to be told.
      const isUncertain = error instanceof BrokerUnavailableError && error.outcome === "unknown";
      if (!isUncertain) await this.#book.unwatch(this.token, users);
      throw error;
    }
    const outcome = outcomeOf(result);
    if (outcome === "not sent") await this.#book.unwatch(this.token, users);
    else await this.#book.sent(message, users, outcome.seq);
    return result;
  }
}
