/**
 * One Redis connection for many channels: it keeps Redis' list of subscribed channels equal to the channels that
 * somebody here listens to, whatever joins, leaves and breaks meanwhile.
 *
 * A channel needs to remember only the last command that was sent for it and how many answers are due: it is
 * *confirmed* when none is due and the last was SUBSCRIBE.
 *
 * An ACL may forbid a channel, and then refuses every command that names it. That is the channel's misfortune alone:
 * of a batch that was refused each channel is asked for by itself, and a waiter for a refused one gets the reason. Those
 * who had it before go on waiting, as for a connection that was lost.
 */
import { setImmediate } from "node:timers";
import { inSlices } from "../async/slices.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { logMessage, publicMessageOfReply } from "../redis/commands.ts";
import type { PubSubWords } from "../redis/pubsub_words.ts";
import { type Patience, PubSubConnection, type PubSubContext } from "../redis/pubsub_connection.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import type { Reply, RespParser } from "../redis/resp.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { Listener } from "./listener.ts";
import type { Held } from "./subscriptions.ts";
import { SharedChannel } from "./shared_channel.ts";
import { SharedCommands } from "./shared_commands.ts";
import { isLost, SharedLosses } from "./shared_losses.ts";

/** What a shared connection needs of those it is one of. */
export interface SharedContext {
  /** A new connection, logged in. */
  dial(attempt: Attempt): Promise<RedisConnection>;
  /** Redis has the channel in its list from now on. */
  onSubscribed(channel: string): void;
  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void;
  onConnectionLost(reason: string): void;
  /** A channel that was lost can't be had back: said of the first one on each connection. */
  onRefused(channel: string, reason: string): void;
  /** Another master of the cluster keeps channels of this connection. */
  onTaken(): void;
  /** What pub/sub is called there. */
  readonly words: PubSubWords;
  /** Has what subscribers throw. */
  readonly log: Log | undefined;
}

/** So many channels are told to Redis in one turn of the event loop. */
const MAX_CHANGES = 500;
const PATIENCE: Patience = { ping: 1, close: 3 };

export class SharedConnection extends PubSubConnection {
  readonly #dialling: PubSubContext;
  readonly #context: SharedContext;
  readonly #channels = new Map<string, SharedChannel>();
  /** Channels whose wish may differ from what was sent. */
  #dirty = new Set<SharedChannel>();
  /** Channels that Redis does not give us, to be asked for again now and then. */
  readonly #refused = new Set<SharedChannel>();
  readonly #losses: SharedLosses;
  #commands: SharedCommands;
  /** Whether a refused channel was logged, on this connection. */
  #isRefusalSaid = false;

  constructor(dialling: PubSubContext, context: SharedContext) {
    super(dialling, PATIENCE);
    this.#dialling = dialling;
    this.#context = context;
    this.#commands = this.#newCommands();
    this.#losses = new SharedLosses({
      onLost: (count) => context.onLost(count),
      isConfirmed: (channel) => this.#commands.isConfirmed(channel),
    });
    this.start();
  }

  /** @throws {BrokerUnavailableError} when Redis does not confirm it in time. */
  async subscribe(
    name: string,
    subscriber: Subscriber,
    signal: AbortSignal | undefined,
  ): Promise<Subscription> {
    signal?.throwIfAborted();
    let channel = this.#channels.get(name);
    if (!channel) this.#channels.set(name, channel = new SharedChannel(name));
    const listener = new Listener(name, subscriber, this.#context.log);
    channel.listeners.add(listener);
    this.#sync(channel);
    try {
      if (!this.#commands.isConfirmed(channel)) {
        await this.#dialling.attempt(signal, (attempt) => this.#confirmation(channel, attempt));
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

  names(): IterableIterator<string> {
    return this.#channels.keys();
  }

  /** What Redis must count now for the channel, if anything: another object each time that it was subscribed. */
  confirmed(name: string): Held | undefined {
    const channel = this.#channels.get(name);
    if (channel === undefined || channel.listeners.size === 0) return undefined;
    return this.#commands.isConfirmed(channel) ? channel.held : undefined;
  }

  override checkHealth(): void {
    super.checkHealth();
    this.askAgain();
  }

  /** Asks again for what was refused. */
  askAgain(): void {
    if (!this.connection) return;
    void inSlices(this.#refused, (channel) => {
      this.#refused.delete(channel);
      this.#sync(channel);
    });
  }

  override async close(): Promise<void> {
    await super.close();
    await inSlices(this.#channels.values(), (channel) => {
      channel.listeners.clear();
      this.#forget(channel);
    });
  }

  /** Waits until Redis no longer counts the channel, or somebody listens to it again; while it hangs, not for long. */
  async #gone(channel: SharedChannel): Promise<void> {
    let isLate = false;
    const { closeDeadlines } = this.#dialling;
    const deadline = closeDeadlines.set(() => {
      isLate = true;
      channel.settle();
    });
    while (
      channel.listeners.size === 0 && this.#channels.get(channel.name) === channel && !isLate &&
      !this.isClosed
    ) {
      await channel.settled();
    }
    closeDeadlines.clear(deadline);
  }

  #leave(channel: SharedChannel, listener: Listener): void {
    if (!channel.listeners.delete(listener)) return;
    this.#losses.leave(listener);
    this.#sync(channel);
  }

  /**
   * Has Redis told, together with all else that changes in this turn of the event loop: a write wakes
   * Redis, and with many users coming and going these writes would be a tenth of all work.
   */
  #sync(channel: SharedChannel): void {
    if (this.#dirty.size === 0) setImmediate(() => this.#flush());
    this.#dirty.add(channel);
  }

  #flush(): void {
    const joins: SharedChannel[] = [], leaves: SharedChannel[] = [];
    let count = 0;
    for (const channel of this.#dirty) {
      if (count++ === MAX_CHANGES) {
        setImmediate(() => this.#flush());
        break;
      }
      this.#dirty.delete(channel);
      const isWished = channel.listeners.size > 0;
      if (!this.connection) {
        if (!isWished) this.#forget(channel);
        continue;
      }
      const last = this.#commands.lastOf(channel);
      if (isWished && last !== "subscribe") joins.push(channel);
      else if (!isWished && last === "subscribe") leaves.push(channel);
      else if (!isWished && (last === undefined || channel.due === 0)) this.#forget(channel);
    }
    if (joins.length + leaves.length === 0) return;
    this.write(this.#commands.make({ leave: leaves, join: joins }));
  }

  #forget(channel: SharedChannel): void {
    this.#refused.delete(channel);
    if (this.#channels.get(channel.name) === channel) this.#channels.delete(channel.name);
    channel.settle();
  }

  async #confirmation(channel: SharedChannel, attempt: Attempt): Promise<void> {
    do {
      if (this.isClosed) throw new BrokerUnavailableError("The broker is closed");
      const refusal = await attempt.step(channel.settled());
      if (refusal !== undefined) {
        throw new BrokerUnavailableError(publicMessageOfReply(refusal), { cause: logMessage(refusal) });
      }
    } while (!this.#commands.isConfirmed(channel));
  }

  protected dial(attempt: Attempt): Promise<RedisConnection> {
    return this.#context.dial(attempt);
  }

  protected pingCommand(): Uint8Array {
    return this.#commands.ping();
  }

  protected onConnected(): void {
    this.#isRefusalSaid = false;
    const commands = this.#commands;
    // In slices: each may be told to Redis anew. Those that come meanwhile say so themselves.
    void inSlices(this.#channels.values(), (channel) => {
      if (commands === this.#commands) this.#sync(channel);
    });
  }

  /**
   * Every channel is unconfirmed again, at once. Those who listen are told in slices; it is not dialled again before that,
   * so nobody is told of the end of a loss before its beginning.
   */
  protected async onLost(reason: string): Promise<void> {
    this.#context.onConnectionLost(reason);
    const before = this.#commands;
    this.#commands = this.#newCommands();
    this.#refused.clear();
    await inSlices(this.#channels.values(), (channel) => {
      if (channel.listeners.size === 0) this.#forget(channel);
      else if (before.isConfirmed(channel)) this.#losses.lose(channel, reason);
    });
  }

  protected onMessage(parser: RespParser): void {
    const channel = this.#channels.get(parser.channel());
    if (!channel || channel.listeners.size === 0) return;
    const payload = parser.payload();
    const { byteLength } = parser;
    for (const listener of channel.listeners) {
      if (this.isClosed) return; // by the one before
      listener.message(payload, byteLength);
    }
  }

  protected onReply(reply: Reply): string | undefined {
    return this.#commands.take(reply);
  }

  #newCommands(): SharedCommands {
    return new SharedCommands({
      onDone: (channel) => this.#onDone(channel),
      onRefused: (channels, reason) => this.#onRefused(channels, reason),
      onTaken: (name) => this.#onTaken(name),
    }, this.#context.words);
  }

  /** Whoever listens to it is moved to the connection that has it now; until then it is lost. */
  #onTaken(name: string): void {
    this.#context.onTaken();
    const channel = this.#channels.get(name);
    if (channel === undefined || !this.#commands.isConfirmed(channel)) return;
    channel.sent = undefined;
    this.#refused.add(channel);
    this.#losses.lose(channel, "Redis keeps this channel on another master now");
  }

  #onDone(channel: SharedChannel): void {
    if (--channel.due > 0) return;
    if (channel.listeners.size === 0) return this.#sync(channel);
    if (!this.#commands.isConfirmed(channel)) return;
    channel.isSuspect = false;
    const { connection } = this;
    channel.held = { close: () => connection?.close() };
    channel.settle();
    this.#context.onSubscribed(channel.name);
    this.#losses.restoreSoon(channel);
  }

  #onRefused(channels: readonly SharedChannel[], reason: string): void {
    if (!reason.startsWith("NOPERM")) this.#context.onTaken();
    for (const channel of channels) {
      channel.isSuspect = true;
      if (--channel.due > 0) continue; // what was sent after it counts
      channel.sent = undefined;
      if (channels.length > 1 || channel.listeners.size === 0) {
        this.#sync(channel);
        continue;
      }
      this.#refused.add(channel);
      channel.settle(reason);
      if (this.#isRefusalSaid || !isLost(channel)) continue;
      this.#isRefusalSaid = true;
      this.#context.onRefused(channel.name, reason);
    }
  }
}
