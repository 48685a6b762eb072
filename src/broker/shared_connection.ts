/**
 * One Redis connection for many channels: it keeps Redis' list of subscribed channels equal to the channels that
 * somebody here listens to, whatever joins, leaves and breaks meanwhile.
 *
 * A channel needs to remember only the last command that was sent for it and how many answers are due: it is
 * *confirmed* when none is due and the last was SUBSCRIBE.
 *
 * An ACL may forbid a channel, and then refuses every command that names it. That is the channel's misfortune alone:
 * of a batch that was refused each channel is asked for by itself, and who waits for a refused one is told why. Those
 * who had it before go on waiting, as for a connection that was lost.
 */
import { setImmediate } from "node:timers";
import type { Deadlines } from "../async/deadlines.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import { explainReply, verbatim } from "../redis/commands.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { Redial } from "../redis/reconnect.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import type { Held } from "./self_check.ts";
import { type Listener, SharedChannel } from "./shared_channel.ts";
import { SharedCommands } from "./shared_commands.ts";

/** What a shared connection needs from its broker. */
export interface SharedConnectionHost {
  /** How long Redis may take to confirm that nobody listens any more. */
  readonly goodbyes: Deadlines;
  /** Begins an attempt at being subscribed. */
  attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T>;
  /** A new connection, logged in. */
  dialShared(attempt: Attempt): Promise<RedisConnection>;
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void;
  /** Redis has the channel in its list from now on. */
  onConfirmed(channel: string): void;
  /** Whether a connection was dialled before all had to be dialled again. */
  isOld(connection: RedisConnection): boolean;
  onSubscriberError(channel: string, error: unknown): void;
  onConnectionLost(why: string): void;
  /** A channel that was lost can't be had back: said of the first one on each connection. */
  onRefused(channel: string, why: string): void;
}

/** Health checks without a byte from Redis before it is pinged, and before the connection is given up. */
const QUIET_CHECKS = 1;
const DEAD_CHECKS = 3;

export class SharedConnection {
  readonly #host: SharedConnectionHost;
  readonly #channels = new Map<string, SharedChannel>();
  /** Channels whose wish may differ from what was sent. */
  #dirty = new Set<SharedChannel>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  readonly #redial: Redial;
  #connection: RedisConnection | undefined;
  #commands = this.#newCommands();
  #writing: Promise<void> | undefined;
  #quietChecks = 0;
  /** Whether the host was told of a refused channel, on this connection. */
  #isRefusalSaid = false;

  constructor(host: SharedConnectionHost) {
    this.#host = host;
    const dial = (attempt: Attempt) => host.dialShared(attempt);
    this.#redial = new Redial({
      dial: (signal) => host.attempt(signal, dial),
      whenReady: () => host.whenReady(),
    });
    this.#running = this.#run();
  }

  /** @throws {BrokerUnavailableError} when Redis does not confirm it in time. */
  async subscribe(
    name: string,
    subscriber: Subscriber,
    signal: AbortSignal | undefined,
  ): Promise<Subscription> {
    signal?.throwIfAborted();
    const channel = this.#open(name);
    const listener: Listener = { subscriber, isLost: false };
    channel.listeners.add(listener);
    this.#sync(channel);
    try {
      if (!channel.isConfirmed) {
        await this.#host.attempt(signal, (attempt) => this.#confirmation(channel, attempt));
      }
    } catch (error) {
      this.#leave(channel, listener);
      throw error;
    }
    return {
      channel: name,
      close: async () => {
        this.#leave(channel, listener);
        if (channel.listeners.size === 0) await this.#gone(channel);
      },
    };
  }

  /** How many channels somebody listens to, and a few that are being left. */
  get size(): number {
    return this.#channels.size;
  }

  /** Their names. */
  names(): IterableIterator<string> {
    return this.#channels.keys();
  }

  /** What Redis must count now for the channel, if anything: another object each time that it was subscribed. */
  confirmed(name: string): Held | undefined {
    const channel = this.#channels.get(name);
    return channel?.isConfirmed && channel.listeners.size > 0 ? channel.held : undefined;
  }

  /** Ends the connection, to dial again: what comes on it is not what is published. */
  cut(): void {
    this.#redial.reset();
    this.#connection?.close();
  }

  /** Called every few seconds: finds a connection that is open on our side only, and asks for what was refused. */
  checkHealth(): void {
    if (!this.#connection) return;
    this.#quietChecks++;
    if (this.#quietChecks >= DEAD_CHECKS) return this.#connection.close();
    if (this.#quietChecks === QUIET_CHECKS) this.ping();
    for (const channel of this.#channels.values()) if (channel.sent === undefined) this.#sync(channel);
  }

  /** Asks Redis for a sign of life. */
  ping(): void {
    if (!this.#connection) return;
    this.#quietChecks = QUIET_CHECKS;
    this.#write(this.#connection, this.#commands.ping());
  }

  /** Ends the connection when nothing has come since it was pinged, to dial again. */
  cutIfSilent(): void {
    if (this.#quietChecks >= QUIET_CHECKS) this.cut();
  }

  async close(): Promise<void> {
    this.#stop.abort(new BrokerUnavailableError("The broker is closed"));
    this.#connection?.close();
    await this.#running;
    await this.#writing;
    for (const channel of this.#channels.values()) {
      channel.listeners.clear();
      channel.settle();
    }
    this.#channels.clear();
  }

  /** Waits until Redis no longer counts the channel, or somebody listens to it again; while it hangs, not for long. */
  async #gone(channel: SharedChannel): Promise<void> {
    let isLate = false;
    const { goodbyes } = this.#host;
    const deadline = goodbyes.set(() => {
      isLate = true;
      channel.settle();
    });
    while (
      channel.listeners.size === 0 && this.#channels.get(channel.name) === channel && !isLate &&
      !this.#stop.signal.aborted
    ) {
      await channel.settled();
    }
    goodbyes.clear(deadline);
  }

  // ------------------------------------------------------------------------------------------------------
  // What is wished for, and what Redis was told

  #open(name: string): SharedChannel {
    let channel = this.#channels.get(name);
    if (!channel) this.#channels.set(name, channel = new SharedChannel(name));
    return channel;
  }

  #leave(channel: SharedChannel, listener: Listener): void {
    if (!channel.listeners.delete(listener)) return;
    if (listener.isLost) this.#host.onLost(-1);
    this.#sync(channel);
  }

  /**
   * Sees to it that Redis is told, together with all else that changes in this turn of the event loop: a write wakes
   * Redis, and with many users coming and going these writes would be a tenth of all work.
   */
  #sync(channel: SharedChannel): void {
    if (this.#dirty.size === 0) setImmediate(() => this.#flush());
    this.#dirty.add(channel);
  }

  #flush(): void {
    const dirty = this.#dirty;
    this.#dirty = new Set();
    const joins: SharedChannel[] = [], leaves: SharedChannel[] = [];
    for (const channel of dirty) {
      const isWished = channel.listeners.size > 0;
      if (!this.#connection) {
        if (!isWished) this.#forget(channel);
      } else if (isWished && channel.sent !== "subscribe") {
        joins.push(channel);
      } else if (!isWished && channel.sent === "subscribe") {
        leaves.push(channel);
      } else if (!isWished && channel.due === 0) {
        this.#forget(channel);
      }
    }
    if (joins.length + leaves.length === 0) return;
    this.#write(this.#connection!, this.#commands.make({ leave: leaves, join: joins }));
  }

  #write(connection: RedisConnection, bytes: Uint8Array): void {
    // One write after the other: two at once could mix their bytes.
    this.#writing = (this.#writing ?? Promise.resolve()).then(() => connection.write(bytes)).catch(() => {
      connection.close(); // the reader sees it and begins anew
    });
  }

  #forget(channel: SharedChannel): void {
    if (this.#channels.get(channel.name) === channel) this.#channels.delete(channel.name);
    channel.settle();
  }

  async #confirmation(channel: SharedChannel, attempt: Attempt): Promise<void> {
    const { signal } = this.#stop;
    do {
      signal.throwIfAborted();
      const refusal = await attempt.step(channel.settled());
      if (refusal !== undefined) {
        throw new BrokerUnavailableError(explainReply(refusal), { cause: verbatim(refusal) });
      }
    } while (!channel.isConfirmed);
  }

  // ------------------------------------------------------------------------------------------------------
  // The connection

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    for (;;) {
      const connection = await this.#redial.connect(signal);
      if (!connection) return;
      // It may have been closed on the connection's way here, and then has found none to let go of.
      if (signal.aborted) return connection.close();
      if (this.#host.isOld(connection)) {
        connection.close();
        continue;
      }
      this.#connection = connection;
      this.#commands = this.#newCommands();
      this.#quietChecks = 0;
      this.#isRefusalSaid = false;
      for (const channel of this.#channels.values()) this.#sync(channel);
      const why = await this.#read(connection);
      connection.close();
      this.#connection = undefined;
      if (signal.aborted) return;
      this.#host.onConnectionLost(why);
      this.#lose(why);
    }
  }

  /** Every channel is unconfirmed again. */
  #lose(why: string): void {
    for (const channel of this.#channels.values()) {
      const wasConfirmed = channel.isConfirmed;
      channel.sent = undefined;
      channel.due = 0;
      if (channel.listeners.size === 0) {
        this.#forget(channel);
      } else if (wasConfirmed) {
        for (const listener of channel.listeners) {
          if (listener.isLost) continue;
          listener.isLost = true;
          this.#host.onLost(1);
          this.#tell(channel, () => listener.subscriber.lost(why));
        }
      }
    }
  }

  async #read(connection: RedisConnection): Promise<string> {
    const { parser } = connection;
    try {
      for (;;) {
        for (;;) {
          if (parser.message()) {
            connection.hasDelivered = true;
            const channel = this.#channels.get(parser.channel());
            if (channel && channel.listeners.size > 0) {
              this.#deliver(channel, parser.payload(), parser.byteLength);
            }
            continue;
          }
          const reply = parser.next();
          if (reply === undefined) break;
          const why = this.#commands.take(reply);
          if (why !== undefined) return why;
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

  #deliver(channel: SharedChannel, payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    for (const { subscriber } of channel.listeners) {
      if (this.#stop.signal.aborted) return; // closed by the one before
      // The subscriber's faults are not the connection's.
      try {
        subscriber.message(payload, byteLength);
      } catch (error) {
        this.#host.onSubscriberError(channel.name, error);
      }
    }
  }

  #newCommands(): SharedCommands {
    return new SharedCommands({
      onDone: (channel) => this.#onDone(channel),
      onRefused: (channels, why) => this.#onRefused(channels, why),
    });
  }

  #onDone(channel: SharedChannel): void {
    if (--channel.due > 0) return;
    if (channel.listeners.size === 0) return this.#sync(channel);
    if (!channel.isConfirmed) return;
    channel.isSuspect = false;
    const connection = this.#connection;
    channel.held = { close: () => connection?.close() };
    channel.settle();
    this.#host.onConfirmed(channel.name);
    for (const listener of channel.listeners) {
      if (!listener.isLost) continue;
      listener.isLost = false;
      this.#host.onLost(-1);
      this.#tell(channel, () => listener.subscriber.restored());
    }
  }

  #onRefused(channels: readonly SharedChannel[], why: string): void {
    for (const channel of channels) {
      channel.isSuspect = true;
      if (--channel.due > 0) continue; // what was sent after it counts
      channel.sent = undefined;
      if (channels.length > 1 || channel.listeners.size === 0) {
        this.#sync(channel);
        continue;
      }
      channel.settle(why);
      if (this.#isRefusalSaid || ![...channel.listeners].some(({ isLost }) => isLost)) continue;
      this.#isRefusalSaid = true;
      this.#host.onRefused(channel.name, why);
    }
  }

  #tell(channel: SharedChannel, notice: () => void): void {
    try {
      notice();
    } catch (error) {
      this.#host.onSubscriberError(channel.name, error);
    }
  }
}
