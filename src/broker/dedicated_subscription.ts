/**
 * One subscription on its own Redis connection: it keeps it alive, dials again when it breaks, and hands each
 * payload to the subscriber. It knows one channel and nothing about sockets.
 */
import type { Deadlines } from "../async/deadlines.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { Redial } from "../redis/reconnect.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import { encodeCommand, ReplyError, type RespParser } from "../redis/resp.ts";

/** What a subscription needs from its broker. */
export interface SubscriptionHost {
  /** How long Redis may take to hang up after we said goodbye. */
  readonly goodbyes: Deadlines;
  /** Begins an attempt at being subscribed. */
  attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T>;
  /** A new connection on which the channel is subscribed. */
  dial(channel: string, attempt: Attempt): Promise<RedisConnection>;
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void;
  /** A connection is this subscription's from now on. */
  onConnected(subscription: RedisSubscription): void;
  /** Whether a connection was dialled before all had to be dialled again. */
  isOld(connection: RedisConnection): boolean;
  onClosed(subscription: RedisSubscription): void;
  onSubscriberError(channel: string, error: unknown): void;
}

const CLOSED = "The connection to Redis was given up";
const PING = encodeCommand("PING");
/** Health checks without a byte from Redis before it is pinged, and before the connection is given up. */
const QUIET_CHECKS = 3;
const DEAD_CHECKS = 5;

export class RedisSubscription implements Subscription {
  readonly channel: string;
  readonly #subscriber: Subscriber;
  readonly #host: SubscriptionHost;
  #connection: RedisConnection | undefined;
  #running: Promise<void> = Promise.resolve();
  #redialing: AbortController | undefined;
  #redial: Redial | undefined;
  #closed: Promise<void> | undefined;
  #paused: PromiseWithResolvers<void> | undefined;
  #quietChecks = 0;

  constructor(channel: string, subscriber: Subscriber, host: SubscriptionHost) {
    this.channel = channel;
    this.#subscriber = subscriber;
    this.#host = host;
  }

  /** The first dial; its fault is the caller's to handle, later ones are mended here. */
  async open(attempt: Attempt): Promise<void> {
    this.#connection = await this.#host.dial(this.channel, attempt);
    this.#running = this.#run(this.#connection);
    this.#host.onConnected(this);
  }

  /** The connection that Redis must count now: none while it is closing, lost, or nobody reads what comes. */
  get confirmed(): RedisConnection | undefined {
    if (this.#closed || this.#paused || this.#connection?.isClosed) return undefined;
    return this.#connection;
  }

  /** Ends the connection, to dial again: what comes on it is not what is published. */
  cut(): void {
    this.#redial?.reset();
    this.#connection?.close();
    if (!this.#paused) return;
    // Whoever waits for the end of the pause sees the end of the connection; the pause goes on.
    const { resolve } = this.#paused;
    this.#paused = Promise.withResolvers();
    resolve();
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  /** Pressure then reaches Redis, which holds what waits and in the end hangs up: a loss that is noticed. */
  pause(): void {
    this.#paused ??= Promise.withResolvers();
  }

  resume(): void {
    this.#paused?.resolve();
    this.#paused = undefined;
  }

  /** Called every few seconds: finds connections that are open on our side only. */
  checkHealth(): void {
    if (!this.#connection || this.#paused) return;
    this.#quietChecks++;
    if (this.#quietChecks === QUIET_CHECKS) this.ping();
    else if (this.#quietChecks >= DEAD_CHECKS) this.#connection.close();
  }

  /** Asks Redis for a sign of life. */
  ping(): void {
    if (!this.#connection || this.#paused) return;
    this.#quietChecks = QUIET_CHECKS;
    this.#connection.write(PING).catch(() => {}); // the reader sees why
  }

  /** Ends the connection when nothing has come since it was pinged, to dial again. */
  cutIfSilent(): void {
    if (this.#quietChecks >= QUIET_CHECKS && !this.#paused) this.cut();
  }

  async #close(): Promise<void> {
    this.resume();
    this.#redialing?.abort(new BrokerUnavailableError("The subscription was closed"));
    const connection = this.#connection;
    if (connection) {
      const { goodbyes } = this.#host;
      const deadline = goodbyes.set(() => connection.close());
      // Redis hangs up in turn, and by then counts this subscription no more.
      await connection.closeWrite().catch(() => connection.close());
      await this.#running;
      goodbyes.clear(deadline);
    } else {
      await this.#running;
    }
    this.#host.onClosed(this);
  }

  async #run(first: RedisConnection): Promise<void> {
    let connection: RedisConnection | undefined = first;
    for (;;) {
      if (this.#host.isOld(connection)) connection.close();
      const why = await this.#read(connection);
      connection.close();
      this.#connection = undefined;
      if (this.#closed) return;
      this.#host.onLost(1);
      const { signal } = this.#redialing = new AbortController();
      this.#tell(() => this.#subscriber.lost(why)); // who may close it
      connection = await (this.#redial ??= this.#newRedial()).connect(signal); // most are never lost
      this.#redialing = undefined;
      this.#host.onLost(-1);
      if (!connection) return;
      // It may have been closed on the connection's way here, and then has found none to let go of.
      if (signal.aborted) return connection.close();
      this.#connection = connection;
      this.#quietChecks = 0;
      this.#host.onConnected(this);
      this.#tell(() => this.#subscriber.restored());
    }
  }

  #newRedial(): Redial {
    const dial = (attempt: Attempt) => this.#host.dial(this.channel, attempt);
    return new Redial({
      dial: (signal) => this.#host.attempt(signal, dial),
      whenReady: () => this.#host.whenReady(),
    });
  }

  /** Delivers until the connection ends; returns why it did. */
  async #read(connection: RedisConnection): Promise<string> {
    const { parser } = connection;
    try {
      for (;;) {
        for (;;) {
          while (this.#paused && !connection.isClosed) await this.#paused.promise;
          if (connection.isClosed) return CLOSED;
          if (parser.message()) {
            connection.hasDelivered = true;
            if (!this.#closed) this.#deliver(parser);
            continue;
          }
          const reply = parser.next();
          if (reply === undefined) break;
          if (reply instanceof ReplyError) return `Redis says: ${reply.text}`;
        }
        const count = await connection.read();
        if (count === null) return "Redis closed the connection";
        parser.filled(count);
        this.#quietChecks = 0;
      }
    } catch (error) {
      return `The connection to Redis broke: ${messageOf(error)}`;
    }
  }

  #deliver(parser: RespParser): void {
    // The subscriber's faults are not the connection's.
    try {
      this.#subscriber.message(parser.payload(), parser.byteLength);
    } catch (error) {
      this.#host.onSubscriberError(this.channel, error);
    }
  }

  #tell(notice: () => void): void {
    try {
      notice();
    } catch (error) {
      this.#host.onSubscriberError(this.channel, error);
    }
  }
}
