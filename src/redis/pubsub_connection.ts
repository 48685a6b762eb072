/**
 * One pub/sub connection to Redis that is kept alive: what comes on it is read, a PING finds out whether a silent one
 * still lives, and one that breaks is dialled again with back-off. What is subscribed on it, and who listens, only the
 * class that extends it knows.
 */
import { Link } from "../async/chain.ts";
import type { Attempt } from "../async/attempt.ts";
import type { Deadlines } from "../async/deadlines.ts";
import type { Pace } from "../async/slices.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { RedisConnection } from "./raw_connection.ts";
import { Reconnect } from "./reconnect.ts";
import type { Reply, RespParser } from "./resp.ts";

/** What all connections of one broker have in common. */
export interface PubSubContext {
  /** What is done for each connection, and may have to be done for all at one time. */
  readonly pace: Pace;
  /** How long Redis may take to hang up after we have. */
  readonly closeDeadlines: Deadlines;
  /** Does what gets a connection, within the time there is for that. */
  attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T>;
  /** The same in the place of a lost one, when it is its turn. */
  redial<T>(signal: AbortSignal, work: (attempt: Attempt) => Promise<T>): Promise<T>;
  /** Resolves when it makes sense to dial. */
  whenReady(): Promise<void>;
  /** Whether a connection was dialled before all had to be dialled again. */
  isOld(connection: RedisConnection): boolean;
}

/** Health checks without a byte from Redis. */
export interface Patience {
  /** Before it is pinged. */
  readonly ping: number;
  /** Before the connection is given up. */
  readonly close: number;
}

export abstract class PubSubConnection extends Link<PubSubConnection> {
  readonly #context: PubSubContext;
  readonly #patience: Patience;
  protected connection: RedisConnection | undefined;
  #running: Promise<void> | undefined;
  #writing: Promise<void> | undefined;
  #reconnect: Reconnect | undefined;
  #reconnecting: AbortController | undefined;
  #paused: PromiseWithResolvers<void> | undefined;
  #closed: Promise<void> | undefined;
  #quietChecks = 0;

  constructor(context: PubSubContext, patience: Patience) {
    super();
    this.#context = context;
    this.#patience = patience;
  }

  /** The connection that Redis must count now: none while it is lost or closing, or nobody reads what comes. */
  get current(): RedisConnection | undefined {
    if (this.#closed || this.#paused || this.connection?.isClosed) return undefined;
    return this.connection;
  }

  /** Takes nothing more from Redis, which holds what waits and in the end hangs up: a loss that is noticed. */
  pause(): void {
    this.#paused ??= Promise.withResolvers();
  }

  resume(): void {
    this.#paused?.resolve();
    this.#paused = undefined;
  }

  /** Called every few seconds: finds a connection that is open on our side only. */
  checkHealth(): void {
    if (!this.connection || this.#paused) return;
    this.#quietChecks++;
    if (this.#quietChecks === this.#patience.ping) this.ping();
    else if (this.#quietChecks >= this.#patience.close) this.connection.close();
  }

  /** Asks Redis for a sign of life. */
  ping(): void {
    if (!this.connection || this.#paused) return;
    this.#quietChecks = this.#patience.ping;
    this.write(this.pingCommand());
  }

  /** Whether nothing has come since it was pinged. */
  get isSilent(): boolean {
    return this.#quietChecks >= this.#patience.ping && !this.#paused && this.connection?.isClosed === false;
  }

  /** Ends the connection, to dial again, when all that were dialled before have to be. */
  cutIfOld(): void {
    if (!this.connection || this.#context.isOld(this.connection)) this.cut();
  }

  /** Ends the connection, to dial again: what comes on it is not what is published. */
  cut(): void {
    this.#reconnect?.reset();
    this.connection?.close();
    if (!this.#paused) return;
    // The reader waits for the end of the pause, and sees the end of the connection; the pause goes on.
    const { resolve } = this.#paused;
    this.#paused = Promise.withResolvers();
    resolve();
  }

  /** Ends it for good: nothing more is handed on. Resolves when Redis no longer counts it. Never rejects. */
  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  protected get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /**
   * Begins to read; call it once.
   * @param connection One that was dialled already; without it, it is dialled as after a loss.
   */
  protected start(connection?: RedisConnection): void {
    this.#running = this.#run(connection);
  }

  /** Writes on the connection that there is. A fault ends it, which the reader sees. */
  protected write(bytes: Uint8Array): void {
    const connection = this.connection!;
    // One write after the other: two at once could mix their bytes.
    this.#writing = (this.#writing ?? Promise.resolve()).then(() => connection.write(bytes))
      .catch(() => connection.close());
  }

  /** A new connection. */
  protected abstract dial(attempt: Attempt): Promise<RedisConnection>;
  protected abstract pingCommand(): Uint8Array;
  /** There is a connection: the first one, or one after a loss. */
  protected abstract onConnected(): void;
  /** The connection is gone, and is being dialled again. */
  protected abstract onLost(reason: string): void | Promise<void>;
  /** A message: what `parser.message` has taken. */
  protected abstract onMessage(parser: RespParser): void;
  /** @returns Why the connection is of no more use, if the reply says that. */
  protected abstract onReply(reply: Reply): string | undefined;

  async #close(): Promise<void> {
    this.resume();
    this.#reconnecting?.abort(new BrokerUnavailableError("The subscription was closed"));
    const connection = this.connection;
    if (!connection) return await this.#running;
    const { closeDeadlines, pace } = this.#context;
    await pace.turn();
    const deadline = closeDeadlines.set(() => connection.close());
    if (this.#writing) await this.#writing;
    // Redis hangs up in turn, and by then counts this connection no more.
    await connection.closeWrite().catch(() => connection.close());
    await this.#running;
    closeDeadlines.clear(deadline);
  }

  /** Reads one connection after the other, in a single frame: there may be ten thousand of them. */
  async #run(first: RedisConnection | undefined): Promise<void> {
    let connection = first;
    if (first && this.#context.isOld(first)) first.close();
    while (!this.#closed) {
      if (!connection) {
        const next = await this.#dialAgain();
        // On the connection's way here nobody could find it, to let go of it.
        if (!next || this.#closed || this.#context.isOld(next)) {
          next?.close();
          continue;
        }
        connection = next;
      }
      this.connection = connection;
      this.#quietChecks = 0;
      this.onConnected();
      const reason = await this.#read(connection);
      this.connection = undefined;
      if (!this.#closed) await this.onLost(reason);
      await this.#context.pace.turn();
      connection.close();
      connection = undefined;
    }
  }

  /** Resolves when there is a connection, or this was closed. */
  async #dialAgain(): Promise<RedisConnection | undefined> {
    const { signal } = this.#reconnecting = new AbortController();
    // Made when it is needed: most are never lost.
    this.#reconnect ??= new Reconnect(
      (signal) => this.#context.redial(signal, (attempt) => this.dial(attempt)),
      () => this.#context.whenReady(),
    );
    const connection = await this.#reconnect.connect(signal);
    this.#reconnecting = undefined;
    return connection;
  }

  /** Hands on what comes until the connection ends; returns why it did. */
  async #read(connection: RedisConnection): Promise<string> {
    const { parser } = connection;
    try {
      for (;;) {
        for (;;) {
          while (this.#paused && !connection.isClosed) await this.#paused.promise;
          // An old one may have to wait to be cut; nothing of it is handed on any more.
          if (connection.isClosed || this.#context.isOld(connection)) {
            return "The connection to Redis was given up";
          }
          if (parser.message()) {
            connection.hasDelivered = true;
            if (!this.#closed) this.onMessage(parser);
            continue;
          }
          const reply = parser.next();
          if (reply === undefined) break;
          if (this.#closed) continue;
          const reason = this.onReply(reply);
          if (reason !== undefined) return reason;
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
}
