/** One subscription on a Redis connection of its own: it knows one channel and one subscriber, and nothing of sockets. */
import type { Attempt } from "../async/attempt.ts";
import type { Log } from "../log/log.ts";
import { type Patience, PubSubConnection, type PubSubContext } from "../redis/pubsub_connection.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import { encodeCommand, isUnsubscribed, type Reply, ReplyError, type RespParser } from "../redis/resp.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { Listener } from "./listener.ts";

/** What a subscription needs of those it is one of. */
export interface DedicatedContext {
  /** A new connection on which the channel is subscribed. */
  dial(channel: string, attempt: Attempt): Promise<RedisConnection>;
  /** Redis has confirmed it, at first or again. */
  onSubscribed(channel: string): void;
  /** Subscriptions were lost, or found again: a negative number. */
  onLost(count: number): void;
  onClosed(subscription: DedicatedSubscription): void;
  /** All end: nothing more is handed on, also where that has not been closed yet. */
  readonly isClosed: boolean;
  /** Has what the subscriber throws. */
  readonly log: Log | undefined;
}

const PING = encodeCommand("PING");
const PASSING = /^(BUSY|LOADING) /;
const PATIENCE: Patience = { ping: 3, close: 5 };

export class DedicatedSubscription extends PubSubConnection implements Subscription {
  readonly #listener: Listener;
  readonly #context: DedicatedContext;

  constructor(
    readonly channel: string,
    subscriber: Subscriber,
    dialling: PubSubContext,
    context: DedicatedContext,
  ) {
    super(dialling, PATIENCE);
    this.#listener = new Listener(channel, subscriber, context.log);
    this.#context = context;
  }

  /** The first dial; its fault is the caller's to handle, later ones are mended. */
  async open(attempt: Attempt): Promise<void> {
    this.start(await this.dial(attempt));
  }

  override async close(): Promise<void> {
    await super.close();
    this.#setLost(false);
    this.#context.onClosed(this);
  }

  protected dial(attempt: Attempt): Promise<RedisConnection> {
    return this.#context.dial(this.channel, attempt);
  }

  protected pingCommand(): Uint8Array {
    return PING;
  }

  protected onConnected(): void {
    const wasLost = this.#listener.isLost;
    this.#setLost(false);
    this.#context.onSubscribed(this.channel);
    if (wasLost) this.#listener.restored();
  }

  protected onLost(reason: string): void {
    this.#setLost(true);
    this.#listener.lost(reason);
  }

  protected onMessage(parser: RespParser): void {
    if (!this.#context.isClosed) this.#listener.message(parser.payload(), parser.byteLength);
  }

  protected onReply(reply: Reply): string | undefined {
    // Busy with somebody's script, or with data that it loads, it answers a PING so: as good a sign of life as any.
    if (reply instanceof ReplyError) {
      return PASSING.test(reply.text) ? undefined : `Redis says: ${reply.text}`;
    }
    // Nobody asked for it: the channel is kept on another master now.
    if (isUnsubscribed(reply)) return "Redis keeps this channel on another master now";
    return undefined;
  }

  #setLost(isLost: boolean): void {
    if (this.#listener.isLost === isLost) return;
    this.#listener.isLost = isLost;
    this.#context.onLost(isLost ? 1 : -1);
  }
}
