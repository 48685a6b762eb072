/** The contract of a way of subscribing on Redis: how a broker's subscriptions are spread over connections. */
import type { Subscriber, Subscription } from "./broker.ts";
import type { OwnSubscriptions } from "./self_check.ts";

export interface Subscriptions extends OwnSubscriptions {
  /** What Redis counts of them: each, or one for all of a process. */
  readonly counted: "sockets" | "nodes";

  /** How many subscriptions are lost, and not back yet. */
  readonly lost: number;

  /** Calls back with the channel of each subscription that Redis has confirmed, also after a loss. */
  onConfirmed(listener: (channel: string) => void): void;

  /** @throws {BrokerUnavailableError} when Redis does not confirm it in time. @throws the signal's reason. */
  subscribe(
    channel: string,
    subscriber: Subscriber,
    signal: AbortSignal | undefined,
  ): Promise<Subscription>;

  /** Ends all connections, which are then dialled again. */
  cut(): void;

  /** Called every few seconds: finds connections that are open on our side only. */
  checkHealth(): void;

  /** Asks on all connections for a sign of life. */
  ping(): void;

  /** Ends those that have given none, which are then dialled again. */
  cutSilent(): void;

  /** Ends every subscription. */
  close(): Promise<void>;
}
