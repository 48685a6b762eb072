/**
 * One subscription on its own Redis connection: it keeps it alive, dials again when it breaks, and hands each
 * payload to the subscriber. It knows one channel and nothing about sockets.
 */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import type { RedisAddress } from "./redis_address.ts";
import { RedisConnection } from "./redis_connection.ts";
import { encodeCommand, messageHead, ReplyError } from "./resp.ts";
import type { Slots } from "./slots.ts";

/** What a subscription needs from its broker. */
export interface SubscriptionHost {
  /** A new connection on which the channel is subscribed. */
  dial(channel: string, signal: AbortSignal | undefined): Promise<RedisConnection>;
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
  onLost(): void;
  onFound(): void;
  onClosed(subscription: RedisSubscription): void;
  onSubscriberError(error: unknown): void;
}

const PING = encodeCommand("PING");
/** Health checks without a byte from Redis before it is pinged, and before the connection is given up. */
const QUIET_CHECKS = 3;
const DEAD_CHECKS = 5;
const MAX_BACKOFF_MS = 2_000;
/** How long Redis may take to hang up after we said goodbye. */
const GOODBYE_MS = 1_000;

// Throws on bytes that are no UTF-8, and keeps a byte order mark: payloads pass byte for byte.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class RedisSubscription implements Subscription {
  readonly channel: string;
  readonly #head: Uint8Array;
  readonly #subscriber: Subscriber;
  readonly #host: SubscriptionHost;
  readonly #closing = Promise.withResolvers<void>();
  #connection: RedisConnection | undefined;
  #running: Promise<void> = Promise.resolve();
  #closed: Promise<void> | undefined;
  #quietChecks = 0;

  constructor(channel: string, subscriber: Subscriber, host: SubscriptionHost) {
    this.channel = channel;
    this.#head = messageHead(channel);
    this.#subscriber = subscriber;
    this.#host = host;
  }

  /**
   * Dials and subscribes; resolves when Redis has confirmed it.
   * @param options.timeoutMs Covers the waiting for a slot too: while Redis hangs, nobody waits for those before him.
   * @throws {BrokerUnavailableError}
   */
  static async dial(
    address: RedisAddress,
    options: { channel: string; timeoutMs: number; slots: Slots; signal?: AbortSignal },
  ): Promise<RedisConnection> {
    const { channel, timeoutMs, slots, signal } = options;
    const attempt = new AbortController();
    const abort = () => attempt.abort(signal?.reason);
    const timer = setTimeout(
      () =>
        attempt.abort(
          new BrokerUnavailableError(`Redis did not confirm a subscription within ${timeoutMs} ms`),
        ),
      timeoutMs,
    );
    signal?.addEventListener("abort", abort);
    try {
      signal?.throwIfAborted();
      const commands = [encodeCommand("SUBSCRIBE", channel)];
      return await slots.run(
        () => RedisConnection.open(address, { commands, replies: 1, signal: attempt.signal }),
        attempt.signal,
      );
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }

  /** The first dial; its fault is the caller's to handle, later ones are mended here. */
  async open(signal: AbortSignal | undefined): Promise<void> {
    this.#connection = await this.#host.dial(this.channel, signal);
    this.#running = this.#run(this.#connection);
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  /** Called every few seconds: finds connections that are open on our side only. */
  checkHealth(): void {
    if (!this.#connection) return;
    this.#quietChecks++;
    if (this.#quietChecks === QUIET_CHECKS) {
      this.#connection.write(PING).catch(() => {}); // the reader sees why
    } else if (this.#quietChecks >= DEAD_CHECKS) {
      this.#connection.close();
    }
  }

  async #close(): Promise<void> {
    this.#closing.resolve();
    const connection = this.#connection;
    if (connection) {
      const timer = setTimeout(() => connection.close(), GOODBYE_MS);
      // Redis hangs up in turn, and by then counts this subscription no more.
      await connection.closeWrite().catch(() => connection.close());
      await this.#running;
      clearTimeout(timer);
    } else {
      await this.#running;
    }
    this.#host.onClosed(this);
  }

  async #run(first: RedisConnection): Promise<void> {
    let connection: RedisConnection | undefined = first;
    for (;;) {
      const why = await this.#read(connection);
      connection.close();
      this.#connection = undefined;
      if (this.#closed) return;
      this.#host.onLost();
      this.#tell(() => this.#subscriber.lost(why));
      connection = await this.#redial();
      this.#host.onFound();
      if (!connection) return;
      this.#connection = connection;
      this.#quietChecks = 0;
      this.#tell(() => this.#subscriber.restored());
    }
  }

  /** Delivers until the connection ends; returns why it did. */
  async #read(connection: RedisConnection): Promise<string> {
    const { parser } = connection;
    try {
      for (;;) {
        for (;;) {
          const payload = parser.message(this.#head);
          if (payload !== undefined) {
            if (!this.#closed) this.#deliver(payload);
            continue;
          }
          const reply = parser.next();
          if (reply === undefined) break;
          if (reply instanceof ReplyError) return `Redis says: ${reply.text}`;
        }
        if (!await connection.fill()) return "Redis closed the connection";
        this.#quietChecks = 0;
      }
    } catch (error) {
      return `The connection to Redis broke: ${messageOf(error)}`;
    }
  }

  #deliver(bytes: Uint8Array<ArrayBuffer>): void {
    let payload: string | Uint8Array<ArrayBuffer>;
    try {
      payload = utf8.decode(bytes);
    } catch {
      payload = bytes.slice();
    }
    // The subscriber's faults are not the connection's.
    try {
      this.#subscriber.message(payload, bytes.length);
    } catch (error) {
      this.#host.onSubscriberError(error);
    }
  }

  #tell(notice: () => void): void {
    try {
      notice();
    } catch (error) {
      this.#host.onSubscriberError(error);
    }
  }

  /** Dials until it succeeds; undefined when the subscription was closed meanwhile. */
  async #redial(): Promise<RedisConnection | undefined> {
    const stop = new AbortController();
    this.#closing.promise.then(() => stop.abort(new BrokerUnavailableError("The subscription was closed")));
    for (let attempt = 0; !this.#closed; attempt++) {
      await Promise.race([this.#host.whenReady(), this.#closing.promise]);
      // Full jitter: thousands of subscriptions lost at one moment must not come back at one moment.
      if (attempt > 0) await this.#pause(Math.random() * Math.min(50 * 2 ** attempt, MAX_BACKOFF_MS));
      if (this.#closed) break;
      try {
        const connection = await this.#host.dial(this.channel, stop.signal);
        if (!this.#closed) return connection;
        connection.close();
      } catch {
        // Tried again, for as long as the socket lives; the command connection's log says what is wrong.
      }
    }
    return undefined;
  }

  async #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    await Promise.race([promise, this.#closing.promise]);
    clearTimeout(timer);
  }
}
