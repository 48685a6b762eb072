/**
 * Puts checked messages on their way: through the history, which stores and publishes in one step, or through the broker
 * alone where nothing is to be stored. Every send is counted here by what became of it.
 */
import type { Broker } from "../broker/broker.ts";
import type { Appended, AppendOptions, History, OutgoingMessage } from "../history/history.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { resultOf, type SendResult } from "./send.ts";

export class Appender {
  readonly #broker: Broker;
  readonly #history: History;
  readonly #metrics: Metrics | undefined;

  constructor(broker: Broker, history: History, metrics: Metrics | undefined) {
    this.#broker = broker;
    this.#history = history;
    this.#metrics = metrics;
  }

  /** @throws {UserOfflineError | IdempotencyConflictError | BrokerUnavailableError} */
  async append(channel: string, message: OutgoingMessage, options: AppendOptions): Promise<SendResult> {
    let outcome: keyof Metrics["sends"] = "refused";
    try {
      this.assertAvailable(channel);
      const startMs = performance.now();
      const appended: Appended = this.#history.limits.count > 0 || options.idempotency
        ? await this.#history.append(channel, message, options)
        // Nothing to store and nothing to remember: the answer of a plain publish says it all.
        : published(message, await this.#publish(channel, message, options), options);
      this.#metrics?.onAnswer((performance.now() - startMs) / 1_000);
      outcome = outcomeOf(appended);
      return resultOf(appended, this.#broker.counted);
    } catch (error) {
      if (error instanceof BrokerUnavailableError) outcome = "unavailable";
      throw error;
    } finally {
      this.count(outcome);
    }
  }

  /** One message for each of several channels, in one step for all of them. */
  async appendToAll(
    channels: readonly string[],
    message: OutgoingMessage,
    options: AppendOptions,
  ): Promise<PromiseSettledResult<SendResult>[]> {
    if (channels.length === 1) return await Promise.allSettled([this.append(channels[0]!, message, options)]);
    const reasons = channels.map((channel) => this.#broker.unavailable(channel));
    const open = channels.filter((_, i) => reasons[i] === undefined);
    const done = (await this.#appendToOpen(open, message, options)).values();
    const appended = reasons.map((reason): PromiseSettledResult<Appended> =>
      reason === undefined
        ? done.next().value!
        : { status: "rejected", reason: new BrokerUnavailableError(reason) }
    );
    return appended.map((one) => {
      if (one.status === "rejected") {
        this.count(one.reason instanceof BrokerUnavailableError ? "unavailable" : "refused");
        return one;
      }
      this.count(outcomeOf(one.value));
      try {
        return { status: "fulfilled", value: resultOf(one.value, this.#broker.counted) };
      } catch (reason) {
        return { status: "rejected", reason };
      }
    });
  }

  /** Those whose channels can be sent to. */
  async #appendToOpen(
    channels: readonly string[],
    message: OutgoingMessage,
    options: AppendOptions,
  ): Promise<PromiseSettledResult<Appended>[]> {
    if (channels.length === 0) return [];
    try {
      const startMs = performance.now();
      const appended = await this.#history.appendToAll(channels, message, options);
      this.#metrics?.onAnswer((performance.now() - startMs) / 1_000);
      return appended;
    } catch (reason) {
      return channels.map(() => ({ status: "rejected", reason }));
    }
  }

  /** @throws {BrokerUnavailableError} also while subscriptions are being restored: the number would be too small. */
  assertAvailable(channel?: string): void {
    const reason = this.#broker.unavailable(channel);
    if (reason !== undefined) throw new BrokerUnavailableError(reason);
  }

  /** What can be checked before anything is sent. A refusal is counted. @throws what the check throws. */
  checked<T>(check: () => T): T {
    try {
      return check();
    } catch (error) {
      this.count("refused");
      throw error;
    }
  }

  /** Counts one send. */
  count(outcome: keyof Metrics["sends"]): void {
    if (this.#metrics) this.#metrics.sends[outcome]++;
  }

  #publish(
    channel: string,
    { head, tail }: OutgoingMessage,
    { expectOnline = false }: AppendOptions,
  ): Promise<number> {
    return this.#broker.publish(channel, head + tail, { onlyIfHeard: expectOnline });
  }
}

function published({ id }: OutgoingMessage, reached: number, { expectOnline }: AppendOptions): Appended {
  if (reached === 0 && expectOnline) return { outcome: "offline" };
  return { outcome: "appended", id, position: undefined, reached };
}

function outcomeOf(appended: Appended): keyof Metrics["sends"] {
  switch (appended.outcome) {
    case "appended":
      if (appended.reached > 0) return "reached";
      return appended.position === undefined ? "offline" : "stored";
    case "conflict":
      return "refused";
    default:
      return appended.outcome;
  }
}
