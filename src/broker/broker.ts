/**
 * The contract of a broker: it carries payloads from a publisher on a channel to every subscription of
 * that channel, in any process. The room `broker/` owns that way, in memory and over Redis; it knows neither what is in
 * a payload nor who is behind a channel.
 *
 * Guarantees, for every implementation (`tests/contracts/broker.ts` checks them):
 *
 * - `subscribe` resolves only when a publish made from then on would arrive. Until it resolves nobody holds
 *   anything: when it rejects, or its signal aborts, nothing is left behind.
 * - Payloads published on one channel by one publisher arrive in order, at most once. A payload published while
 *   a subscription is *lost* may be missed; `lost` and `restored` frame that time, always in pairs, unless the
 *   subscription is closed in between.
 * - After `Subscription.close()` was called nothing more is delivered. When its promise resolves, the broker no
 *   longer counts the subscription. It may be called any number of times.
 * - `publish` answers with the number of subscriptions the payload was handed to, found in the same step as the
 *   hand-over: there is no moment between check and publish. A watcher by pattern is not counted.
 *   Where all subscriptions of a process share one of the broker's, it is the number of processes, and `counted` says so.
 * - A broker that can't be reached rejects with `BrokerUnavailableError` within a bounded time. Nothing hangs.
 * - A subscriber that throws harms no other subscriber and no later payload.
 */

/** What a subscription reports to. Called synchronously, from the broker's own reading loop. */
export interface Subscriber {
  /**
   * A payload arrived.
   * @param payload Text when the bytes are valid UTF-8, else the bytes.
   * @param byteLength Size of the payload in bytes.
   */
  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void;
  /** From here on payloads may be missed. */
  lost(reason: string): void;
  /** Payloads arrive again. */
  restored(): void;
}

/** One subscriber's listening on one channel. */
export interface Subscription {
  readonly channel: string;
  /** Stops delivering at once; resolves when the broker no longer counts this subscription. Never rejects. */
  close(): Promise<void>;
  /**
   * Takes nothing more from the broker, until `resume`; what is published meanwhile waits there. Only where a
   * subscription has a connection to itself. The message that is being delivered is the last one.
   */
  pause?(): void;
  resume?(): void;
}

export interface Broker {
  /** "memory" or "redis". */
  readonly kind: string;

  /** What the numbers of `publish` and `counts` are: sockets, or nodes that hold at least one of them. */
  readonly counted: "sockets" | "nodes";

  /**
   * Undefined when the broker can be used; else what keeps it from that, as a sentence without a full stop.
   * @param channel Asks for this one; without it, whether there is any that can be used.
   */
  unavailable(channel?: string): string | undefined;

  /**
   * @param options.signal Aborts the attempt; the promise then rejects with the signal's reason.
   * @throws {BrokerUnavailableError} when the broker can't confirm the subscription in time.
   */
  subscribe(
    channel: string,
    subscriber: Subscriber,
    options?: { signal?: AbortSignal },
  ): Promise<Subscription>;

  /**
   * @param options.onlyIfHeard Publishes nothing when the channel has no subscription. @default false
   * @returns How many subscriptions got the payload.
   * @throws {BrokerUnavailableError}
   */
  publish(channel: string, payload: string, options?: { onlyIfHeard?: boolean }): Promise<number>;

  /**
   * @returns How many subscriptions each channel has, in the order asked.
   * @throws {BrokerUnavailableError}
   */
  counts(channels: readonly string[]): Promise<number[]>;

  /**
   * Takes in a number of subscriptions that was learned by the way, where messages of the channel go: when those of this
   * broker are not among them, it finds out why.
   */
  learnCount?(channel: string, count: number): void;

  /** Ends every subscription, and frees all else. */
  close(): Promise<void>;
}
