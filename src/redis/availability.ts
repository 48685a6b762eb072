/**
 * Whether commands can be sent to Redis; where they can't, the reason that explains most, and who waits for the end of it.
 * `command_connection.ts` reports to it what happens on the connection.
 */
import { inSlices } from "../async/slices.ts";
import { sleep } from "../async/sleep.ts";
import type { WarnOnce } from "../log/warn_once.ts";
import type { Log } from "../log/log.ts";
import { messageOf } from "../protocol/errors.ts";
import { logMessage, type Severity } from "./error_text.ts";

/** How the first attempt to connect ended. */
export type FirstAttempt =
  | { outcome: "ready" }
  /** Redis answered, and would not let us in: waiting will not help. What it said is for the operator only. */
  | { outcome: "refused"; reason: string; detail?: string; remedy: string }
  /** Nobody answered; attempts go on. */
  | { outcome: "unreachable"; reason: string };

const NOT_YET = "Redis is not connected yet";

export class Availability {
  /** When Redis came back the last time, on the clock of `performance.now()`; -Infinity while it was never away. */
  backAtMs = -Infinity;
  /** How often it came back. */
  reconnects = 0;
  readonly #warnings: WarnOnce;
  readonly #log: Log | undefined;
  readonly #first = Promise.withResolvers<FirstAttempt>();
  readonly #onReturn: (() => void)[] = [];
  #waiters: (() => void)[] = [];
  #reason: string | undefined = NOT_YET;
  #severity: Severity = 0;
  #isClosed = false;

  constructor(warnings: WarnOnce, log: Log | undefined) {
    this.#warnings = warnings;
    this.#log = log;
  }

  /**
   * Undefined while commands can be sent; else what is wrong, as a sentence without a full stop that anybody may read:
   * it names no address.
   */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Whether nothing is known that says more than that Redis does not answer. */
  get isUnexplained(): boolean {
    return this.#reason === undefined || this.#reason === NOT_YET;
  }

  /** Calls back when Redis answers again, after it was away. */
  onReturn(listener: () => void): void {
    this.#onReturn.push(listener);
  }

  /** Resolves when commands can be sent, or never will. */
  whenReady(): Promise<void> {
    if (this.#reason === undefined || this.#isClosed) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Resolves when the first attempt to connect has ended, or after the time given. */
  async firstAttempt(withinMs: number): Promise<FirstAttempt> {
    await sleep(withinMs, this.#first.promise);
    const reason = this.isUnexplained ? "Redis did not answer in time" : this.#reason!;
    this.endFirst({ outcome: "unreachable", reason });
    return await this.#first.promise;
  }

  /**
   * Warns of trouble with Redis once in a while, unless all of Redis is away, which the log says already.
   * @param reason For clients.
   * @param cause For the log alone; without one, nothing is logged.
   */
  warn(event: string, reason: string, cause: unknown): void {
    if (this.#reason === undefined && cause !== undefined) {
      this.#warnings.warn(event, reason, logMessage(messageOf(cause)));
    }
  }

  /** The first attempt has ended in this way, unless it ended before. */
  endFirst(attempt: FirstAttempt): void {
    this.#first.resolve(attempt);
  }

  /** A new connection is dialled: what comes of it may have another reason. */
  dialled(): void {
    this.#severity = 0;
  }

  /**
   * Commands can't be sent.
   * @param options.severity A reason that explains less than the one before, on the same connection, is passed over: it
   *   follows from that. @default that of the one before
   */
  fail(reason: string, options: { detail?: string; severity?: Severity } = {}): void {
    const { detail, severity = this.#severity } = options;
    if (this.#reason !== undefined && severity < this.#severity) return;
    this.#warnings.warn("redis unavailable", reason, detail);
    this.#reason = reason;
    this.#severity = severity;
  }

  /** Commands can be sent: for the first time, or again. */
  restore(): void {
    const isReturn = this.#reason !== NOT_YET;
    if (isReturn) {
      this.backAtMs = performance.now();
      this.reconnects++;
    }
    this.#reason = undefined;
    this.#severity = 0;
    this.#warnings.reset();
    this.endFirst({ outcome: "ready" });
    this.#log?.info("redis available");
    if (isReturn) { for (const listener of this.#onReturn) listener(); }
    this.#wake();
  }

  /** Commands will never be sent any more. */
  close(reason: string): void {
    this.#isClosed = true;
    this.#reason = reason;
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    // Each dials, and there may be one for every socket.
    void inSlices(waiters, (wake) => wake());
  }
}
