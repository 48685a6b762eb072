/**
 * The broker over Redis in which all subscriptions of a process share a few Redis connections: for more sockets
 * than a Redis has connections. Redis then counts processes, not sockets, and so do `publish` and `counts`.
 */
import { explainReply, verbatim } from "../redis/commands.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { RedisBroker, type RedisBrokerOptions, refuseIf } from "./redis.ts";
import { RedisConnection } from "../redis/raw_connection.ts";
import type { Held } from "./self_check.ts";
import { SharedConnection, type SharedConnectionHost } from "./shared_connection.ts";

const BUFFER_BYTES = 64 * 1024;

export class SharedRedisBroker extends RedisBroker implements SharedConnectionHost {
  readonly counted = "nodes";
  readonly #connections: readonly SharedConnection[];

  /** @param options.connections How many connections the channels are spread over. @default 1 */
  constructor(options: RedisBrokerOptions & { connections?: number }) {
    super(options);
    this.#connections = Array.from({ length: options.connections ?? 1 }, () => new SharedConnection(this));
  }

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    refuseIf(this.unreachable());
    return await this.#of(channel).subscribe(channel, subscriber, options.signal);
  }

  dialShared(attempt: Attempt): Promise<RedisConnection> {
    return this.dialled((address, options) =>
      RedisConnection.open(address, attempt, { ...options, bufferSize: BUFFER_BYTES })
    );
  }

  onConfirmed(channel: string): void {
    this.selfCheck.opened(channel);
  }

  onConnectionLost(why: string): void {
    this.redis.complain("shared connection lost", "Its subscriptions are being restored", why);
  }

  onRefused(channel: string, why: string): void {
    this.log?.warn("subscription refused", { channel, reason: explainReply(why), detail: verbatim(why) });
  }

  protected *channels(): Generator<string> {
    for (const connection of this.#connections) yield* connection.names();
  }

  protected get size(): number {
    return this.#connections.reduce((sum, { size }) => sum + size, 0);
  }

  protected confirmed(channel: string): Held[] {
    const held = this.#of(channel).confirmed(channel);
    return held ? [held] : [];
  }

  protected cutSubscriptions(): void {
    for (const connection of this.#connections) connection.cut();
  }

  #of(channel: string): SharedConnection {
    return this.#connections[hash(channel) % this.#connections.length]!;
  }

  protected checkHealth(): void {
    for (const connection of this.#connections) connection.checkHealth();
  }

  protected pingAll(): void {
    for (const connection of this.#connections) connection.ping();
  }

  protected cutSilent(): void {
    for (const connection of this.#connections) connection.cutIfSilent();
  }

  protected closeSubscriptions(): Promise<unknown> {
    return Promise.all(this.#connections.map((connection) => connection.close()));
  }
}

/** Spreads names evenly: FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value >>> 0;
}
