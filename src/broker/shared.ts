/**
 * The way of subscribing in which all subscriptions of a process share a few Redis connections: for more sockets than a
 * Redis has connections. Redis then counts processes, not sockets, and so do `publish` and `counts`.
 */
import type { Attempt } from "../async/attempt.ts";
import type { Log } from "../log/log.ts";
import { logMessage, publicMessageOfReply, type Redis } from "../redis/commands.ts";
import type { PubSubWords } from "../redis/pubsub_words.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import type { Dialler } from "./dialler.ts";
import { SharedConnection, type SharedContext } from "./shared_connection.ts";
import { healthRounds, type Held, type Subscriptions } from "./subscriptions.ts";

const BUFFER_BYTES = 64 * 1024;

export class SharedSubscriptions implements Subscriptions, SharedContext {
  readonly counted = "nodes";
  readonly log: Log | undefined;
  lost = 0;
  onSubscribed: (channel: string) => void = () => {};
  readonly #dialler: Dialler;
  readonly #availability: Redis["availability"];
  readonly connections = healthRounds();
  readonly #connections: readonly SharedConnection[];

  /** @param options What of it can be closed stays the caller's to close, when the subscriptions are closed. */
  constructor(options: { dialler: Dialler; redis: Redis; connections: number; log?: Log }) {
    this.#dialler = options.dialler;
    this.#availability = options.redis.availability;
    this.log = options.log;
    const { connections: length } = options;
    this.#connections = Array.from({ length }, () => new SharedConnection(options.dialler, this));
    for (const connection of this.#connections) this.connections.add(connection);
  }

  get size(): number {
    return this.#connections.reduce((sum, { size }) => sum + size, 0);
  }

  *channels(): Generator<string> {
    for (const connection of this.#connections) yield* connection.names();
  }

  confirmed(channel: string): Held[] {
    const held = this.#of(channel).confirmed(channel);
    return held ? [held] : [];
  }

  subscribe(channel: string, subscriber: Subscriber, signal: AbortSignal | undefined): Promise<Subscription> {
    return this.#of(channel).subscribe(channel, subscriber, signal);
  }

  askAgain(): void {
    for (const connection of this.#connections) connection.askAgain();
  }

  async close(): Promise<void> {
    await Promise.all(this.#connections.map((connection) => connection.close()));
  }

  dial(attempt: Attempt): Promise<RedisConnection> {
    return this.#dialler.dial(attempt, { bufferSize: BUFFER_BYTES, onlyMaster: true });
  }

  onLost(count: number): void {
    this.lost += count;
  }

  get words(): PubSubWords {
    return this.#dialler.words;
  }

  onTaken(): void {
    this.#dialler.doubt();
  }

  onConnectionLost(reason: string): void {
    this.#availability.warn("shared connection lost", "Its subscriptions are being restored", reason);
  }

  onRefused(channel: string, reason: string): void {
    const detail = logMessage(reason);
    this.log?.warn("subscription refused", { channel, reason: publicMessageOfReply(reason), detail });
  }

  #of(channel: string): SharedConnection {
    return this.#connections[hash(channel) % this.#connections.length]!;
  }
}

/** Spreads names evenly: FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
