/**
 * One Redis connection for many channels: it keeps Redis' list of subscribed channels equal to the channels that
 * somebody here listens to, whatever joins, leaves and breaks meanwhile.
 *
 * Redis carries out commands in order and answers each. So a channel needs to remember only the last command that
 * was sent for it and how many answers are due: it is *confirmed* when none is due and the last was SUBSCRIBE.
 */
import { setImmediate } from "node:timers";
import type { Deadlines } from "../deadlines.ts";
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Attempt } from "./attempt.ts";
import type { Subscriber, Subscription } from "./broker.ts";
import { redial } from "./redial.ts";
import type { RedisConnection } from "./redis_connection.ts";
import { concat, encodeCommand, type Reply, ReplyError } from "./resp.ts";

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
  onSubscriberError(channel: string, error: unknown): void;
}

interface Listener {
  readonly subscriber: Subscriber;
  isLost: boolean;
}

interface Channel {
  readonly name: string;
  readonly listeners: Set<Listener>;
  /** The last command sent for it on this connection. */
  sent: "subscribe" | "unsubscribe" | undefined;
  /** Answers that are due. */
  due: number;
  /** Called whenever it is settled: confirmed, or gone. */
  settled: (() => void)[];
}

const PING = encodeCommand("PING");
/** Health checks without a byte from Redis before it is pinged, and before the connection is given up. */
const QUIET_CHECKS = 1;
const DEAD_CHECKS = 3;
/** Channels in one command: few enough that Redis is not kept from others for long. */
const BATCH = 500;

export class SharedConnection {
  readonly #host: SharedConnectionHost;
  readonly #channels = new Map<string, Channel>();
  /** Channels whose wish may differ from what was sent. */
  #dirty = new Set<Channel>();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #connection: RedisConnection | undefined;
  #writing: Promise<void> | undefined;
  #quietChecks = 0;

  constructor(host: SharedConnectionHost) {
    this.#host = host;
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
      if (!isConfirmed(channel)) {
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

  /** Called every few seconds: finds a connection that is open on our side only. */
  checkHealth(): void {
    if (!this.#connection) return;
    this.#quietChecks++;
    if (this.#quietChecks === QUIET_CHECKS) this.#connection.write(PING).catch(() => {}); // the reader sees why
    else if (this.#quietChecks >= DEAD_CHECKS) this.#connection.close();
  }

  async close(): Promise<void> {
    this.#stop.abort(new BrokerUnavailableError("The broker is closed"));
    this.#connection?.close();
    await this.#running;
    await this.#writing;
    for (const channel of this.#channels.values()) {
      channel.listeners.clear();
      settle(channel);
    }
    this.#channels.clear();
  }

  /** Waits until Redis no longer counts the channel, or somebody listens to it again; while it hangs, not for long. */
  async #gone(channel: Channel): Promise<void> {
    let isLate = false;
    const { goodbyes } = this.#host;
    const deadline = goodbyes.set(() => {
      isLate = true;
      settle(channel);
    });
    while (
      channel.listeners.size === 0 && this.#channels.get(channel.name) === channel && !isLate &&
      !this.#stop.signal.aborted
    ) {
      await nextSettled(channel);
    }
    goodbyes.clear(deadline);
  }

  // ------------------------------------------------------------------------------------------------------
  // What is wished for, and what Redis was told

  #open(name: string): Channel {
    let channel = this.#channels.get(name);
    if (!channel) {
      this.#channels.set(
        name,
        channel = { name, listeners: new Set(), sent: undefined, due: 0, settled: [] },
      );
    }
    return channel;
  }

  #leave(channel: Channel, listener: Listener): void {
    if (!channel.listeners.delete(listener)) return;
    if (listener.isLost) this.#host.onLost(-1);
    this.#sync(channel);
  }

  /**
   * Sees to it that Redis is told, together with all else that changes in this turn of the event loop: a write wakes
   * Redis, and with many users coming and going these writes would be a tenth of all work.
   */
  #sync(channel: Channel): void {
    if (this.#dirty.size === 0) setImmediate(() => this.#flush());
    this.#dirty.add(channel);
  }

  #flush(): void {
    const dirty = this.#dirty;
    this.#dirty = new Set();
    const joins: Channel[] = [], leaves: Channel[] = [];
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
    const commands = [...commandsFor("unsubscribe", leaves), ...commandsFor("subscribe", joins)];
    if (commands.length > 0) this.#write(this.#connection!, concat(commands));
  }

  #write(connection: RedisConnection, bytes: Uint8Array): void {
    // One write after the other: two at once could mix their bytes.
    this.#writing = (this.#writing ?? Promise.resolve()).then(() => connection.write(bytes)).catch(() => {
      connection.close(); // the reader sees it and begins anew
    });
  }

  #forget(channel: Channel): void {
    if (this.#channels.get(channel.name) === channel) this.#channels.delete(channel.name);
    settle(channel);
  }

  async #confirmation(channel: Channel, attempt: Attempt): Promise<void> {
    const { signal } = this.#stop;
    do {
      signal.throwIfAborted();
      await attempt.step(nextSettled(channel));
    } while (!isConfirmed(channel));
  }

  // ------------------------------------------------------------------------------------------------------
  // The connection

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const dial = (attempt: Attempt) => this.#host.dialShared(attempt);
    for (;;) {
      const connection = await redial((signal) => this.#host.attempt(signal, dial), {
        whenReady: () => this.#host.whenReady(),
        signal,
      });
      if (!connection) return;
      // It may have been closed on the connection's way here, and then has found none to let go of.
      if (signal.aborted) return connection.close();
      this.#connection = connection;
      this.#quietChecks = 0;
      for (const channel of this.#channels.values()) this.#sync(channel);
      const why = await this.#read(connection);
      connection.close();
      this.#connection = undefined;
      if (signal.aborted) return;
      this.#lose(why);
    }
  }

  /** Every channel is unconfirmed again. */
  #lose(why: string): void {
    for (const channel of this.#channels.values()) {
      const wasConfirmed = isConfirmed(channel);
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
            const channel = this.#channels.get(parser.channel());
            if (channel && channel.listeners.size > 0) {
              this.#deliver(channel, parser.payload(), parser.byteLength);
            }
            continue;
          }
          const reply = parser.next();
          if (reply === undefined) break;
          if (reply instanceof ReplyError) return `Redis says: ${reply.text}`;
          this.#onReply(reply);
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

  #deliver(channel: Channel, payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
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

  /** An answer to SUBSCRIBE or UNSUBSCRIBE: `[kind, channel, count]`. */
  #onReply(reply: Reply): void {
    if (!Array.isArray(reply) || !(reply[1] instanceof Uint8Array)) return;
    const [kind, name] = [decoder.decode(reply[0] as Uint8Array), decoder.decode(reply[1])];
    if (kind !== "subscribe" && kind !== "unsubscribe") return; // the answer to PING
    const channel = this.#channels.get(name);
    if (!channel || --channel.due > 0) return;
    if (channel.listeners.size === 0) return this.#sync(channel);
    if (!isConfirmed(channel)) return;
    settle(channel);
    for (const listener of channel.listeners) {
      if (!listener.isLost) continue;
      listener.isLost = false;
      this.#host.onLost(-1);
      this.#tell(channel, () => listener.subscriber.restored());
    }
  }

  #tell(channel: Channel, notice: () => void): void {
    try {
      notice();
    } catch (error) {
      this.#host.onSubscriberError(channel.name, error);
    }
  }
}

const decoder = new TextDecoder();

function isConfirmed(channel: Channel): boolean {
  return channel.sent === "subscribe" && channel.due === 0;
}

function settle(channel: Channel): void {
  const { settled } = channel;
  channel.settled = [];
  for (const resolve of settled) resolve();
}

/** Resolves when it is settled, in one way or the other. */
function nextSettled(channel: Channel): Promise<void> {
  return new Promise((resolve) => channel.settled.push(resolve));
}

function commandsFor(kind: "subscribe" | "unsubscribe", channels: readonly Channel[]): Uint8Array[] {
  const commands: Uint8Array[] = [];
  for (let i = 0; i < channels.length; i += BATCH) {
    const batch = channels.slice(i, i + BATCH);
    for (const channel of batch) {
      channel.sent = kind;
      channel.due++;
    }
    commands.push(encodeCommand(kind.toUpperCase(), ...batch.map(({ name }) => name)));
  }
  return commands;
}
