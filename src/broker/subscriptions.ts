/** The contract of a way of subscribing on Redis: how a broker's subscriptions are spread over connections. */
import { Rounds } from "../async/slices.ts";
import type { PubSubConnection } from "../redis/pubsub_connection.ts";
import type { Subscriber, Subscription } from "./broker.ts";

/** A connection of ours to Redis. */
export interface Held {
  close(): void;
}

export interface Subscriptions {
  /** How many channels there are. */
  readonly size: number;

  channels(): IterableIterator<string>;

  /** The connections that Redis must count for this channel now: confirmed, not closing, and being read. */
  confirmed(channel: string): readonly Held[];

  /** What Redis counts of them: each, or one for all of a process. */
  readonly counted: "sockets" | "nodes";

  /** How many subscriptions are lost, and not back yet. */
  readonly lost: number;

  /** Called with the channel of each subscription that Redis has confirmed, also after a loss. */
  onSubscribed: (channel: string) => void;

  /** @throws {BrokerUnavailableError} when Redis does not confirm it in time. @throws the signal's reason. */
  subscribe(channel: string, subscriber: Subscriber, signal: AbortSignal | undefined): Promise<Subscription>;

  /** All there are, those that are being dialled too, with their health checks. */
  readonly connections: Rounds<PubSubConnection>;

  /** What Redis refused may be granted from now on. */
  askAgain(): void;

  /** Ends every subscription. */
  close(): Promise<void>;
}

/** An empty collection of connections, for a health check of each every five seconds, not of all at one time. */
export function healthRounds(): Rounds<PubSubConnection> {
  return new Rounds({ periodMs: 5_000, parts: 50, maxLateMs: 500, calm: { items: 250, everyMs: 1_000 } });
}
