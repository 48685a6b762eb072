/**
 * The one connection of this process on which commands go to Redis, and whether they can.
 *
 * It promises that no command waits for ever. The client library alone does not: a command that has been written waits
 * as long as Redis hangs, and a hung Redis looks connected. So every command has a deadline, and a heartbeat finds
 * out when Redis has stopped answering.
 */
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import type { Log } from "../log.ts";
import { Complaints } from "./complaints.ts";
import { asUnavailable, type Client, isRefusal, newClient, type RedisTls } from "./library.ts";
import { explain, isReply, verbatim, weightOf } from "./words.ts";

export interface RedisOptions {
  tls?: RedisTls;
  /** How long a command may take, in milliseconds. @default 3000 */
  timeoutMs?: number;
  log?: Log;
}

/** How the first attempt to connect ended. */
export type FirstAttempt =
  | { outcome: "ready" }
  /** Redis answered, and would not let us in: waiting will not help. What it said is for the operator only. */
  | { outcome: "refused"; why: string; detail: string }
  /** Nobody answered; attempts go on. */
  | { outcome: "unreachable"; why: string };

interface Pending {
  readonly dueMs: number;
  readonly reject: (error: Error) => void;
}

const DEFAULT_TIMEOUT_MS = 3_000;
const TICK_MS = 250;
const HEARTBEAT_MS = 1_000;
const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1_000;
const NOT_YET = "Redis is not connected yet";

export abstract class CommandConnection {
  readonly #url: string;
  readonly #tls: RedisTls | undefined;
  readonly #timeoutMs: number;
  readonly #log: Log | undefined;
  readonly #complaints: Complaints;
  readonly #pending = new Set<Pending>();
  readonly #first = Promise.withResolvers<FirstAttempt>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #greetings: (readonly string[])[] = [];
  #client: Client;
  #dialTimer: ReturnType<typeof setTimeout> | undefined;
  /** Connections that ended before Redis said who it is, one after the other. */
  #vainDials = 0;
  #backAtMs = -Infinity;
  #reconnects = 0;
  #run = "";
  #waiters: (() => void)[] = [];
  #why: string | undefined = NOT_YET;
  /** How much is known of why this connection fails; see `weightOf`. */
  #weight = 0;
  /** Whether Redis has said which life it lives, on this connection. */
  #greeted = false;
  #closed = false;
  #nextBeatMs = 0;

  protected constructor(url: string, options: RedisOptions) {
    this.#url = url;
    this.#tls = options.tls;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#log = options.log;
    this.#complaints = new Complaints(options.log);
    this.#client = this.#dial();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Resolves when the first attempt to connect has ended, or after the time given. */
  async firstAttempt(withinMs: number): Promise<FirstAttempt> {
    const timer = setTimeout(
      () => this.#first.resolve({ outcome: "unreachable", why: "Redis did not answer in time" }),
      withinMs,
    );
    try {
      return await this.#first.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Undefined while commands can be sent; else what is wrong, as a sentence without a full stop that anybody may read:
   * it names no address.
   */
  unavailable(): string | undefined {
    return this.#why;
  }

  /** When Redis came back the last time, on the clock of `performance.now()`; -Infinity while it was never away. */
  get backAtMs(): number {
    return this.#backAtMs;
  }

  /** How often it came back. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /**
   * Names the life of the Redis that is connected now: its run id, which a restart changes. It ends in "+" when that
   * life has all that the one before it had: with an append-only file, unless it was a replica that took over, which
   * may have been behind.
   */
  get run(): string {
    return this.#run;
  }

  /**
   * Warns of trouble with Redis once in a while, unless all of Redis is away, which the log says already.
   * @param reason What clients are told.
   * @param cause What only the log is told; when there is no more to say, nothing is said at all.
   */
  complain(event: string, reason: string, cause: unknown): void {
    if (this.#why === undefined && cause !== undefined) {
      this.#complaints.make(event, reason, verbatim(messageOf(cause)));
    }
  }

  /** Resolves when commands can be sent, or this is closed. */
  whenReady(): Promise<void> {
    if (this.unavailable() === undefined || this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Ends the connection. Commands still waiting are rejected at once. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#dialTimer);
    this.#why = "The connection to Redis is closed";
    for (const { reject } of this.#pending) {
      reject(new BrokerUnavailableError(this.#why, { outcome: "unknown" }));
    }
    this.#pending.clear();
    this.#wake();
    this.#client.destroy();
    return Promise.resolve();
  }

  /**
   * Issues a command, unless it is known that it can't be sent.
   * @throws {BrokerUnavailableError} also when Redis refuses it, or has not answered in time.
   */
  protected command<T>(issue: (client: Client) => Promise<T>): Promise<T> {
    const why = this.unavailable();
    if (why !== undefined) return Promise.reject(new BrokerUnavailableError(why));
    return this.#issue(issue);
  }

  /** From the next connection on, sends this before anything else. Nobody hears what comes of it. */
  protected greetWith(command: readonly string[]): void {
    this.#greetings.push(command);
  }

  #dial(): Client {
    this.#weight = 0;
    const client = newClient(this.#url, this.#tls);
    // Ready is what the library calls a connection on which Redis may not have said a word: so it is asked.
    client.on("ready", () => {
      this.#greeted = false;
      this.#beat();
    });
    // Without a listener an error would end the client in silence.
    client.on("error", (error: unknown) => this.#onError(error));
    client.on("terminated", () => this.#redial());
    client.connect().catch(() => {}); // its events have said it
    return client;
  }

  /**
   * Dials again, at once when Redis had answered on the connection that ended. The library would do so also when it
   * had not: a Redis that accepts and hangs up, as one that does not like our certificate, would be dialled as fast as
   * the network allows.
   */
  #redial(): void {
    if (this.#closed) return;
    // Nothing is known of whoever answers next, before it has said who it is.
    this.#greeted = false;
    const attempt = this.#vainDials++;
    const delayMs = attempt === 0
      ? 0
      : Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(attempt, 10), MAX_BACKOFF_MS) * (0.5 + Math.random() / 2);
    clearTimeout(this.#dialTimer);
    this.#dialTimer = setTimeout(() => {
      this.#client.destroy();
      this.#client = this.#dial();
    }, delayMs);
  }

  #issue<T>(issue: (client: Client) => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const pending: Pending = { dueMs: performance.now() + this.#timeoutMs, reject };
    this.#pending.add(pending);
    issue(this.#client).then((value) => {
      this.#pending.delete(pending);
      if (this.#why !== undefined) this.#onAnswer();
      resolve(value);
    }, (error: unknown) => {
      this.#pending.delete(pending);
      const unavailable = asUnavailable(error);
      this.complain("redis refused a command", unavailable.message, unavailable.cause);
      reject(unavailable);
    });
    return promise;
  }

  #tick(): void {
    const nowMs = performance.now();
    // Pending commands are in the order of their deadlines, so this looks at one more than it rejects.
    for (const pending of this.#pending) {
      if (pending.dueMs > nowMs) break;
      this.#pending.delete(pending);
      pending.reject(
        new BrokerUnavailableError(`Redis did not answer within ${this.#timeoutMs} ms`, {
          outcome: "unknown",
        }),
      );
      // Where more is known already, that is said.
      if (this.#why === undefined || this.#why === NOT_YET) this.#fail("Redis does not answer");
    }
    if (nowMs >= this.#nextBeatMs && this.#client.isReady) this.#beat();
  }

  #beat(): void {
    this.#nextBeatMs = performance.now() + HEARTBEAT_MS;
    // A beat without an answer is seen by its deadline or by the client's error event.
    this.#issue<unknown>((client) => this.#greeted ? client.ping() : this.#greet()).catch(
      ({ cause }: BrokerUnavailableError) => {
        if (isReply(cause)) this.#onError(cause);
      },
    );
  }

  /** Asks what has to be known before anything is sent. */
  async #greet(): Promise<void> {
    // First: what refuses the connection, as a Redis that is full does, comes as the answer to it.
    const asked = this.#client.info();
    // Only for whoever reads CLIENT LIST: a Redis that forbids it serves us all the same.
    this.#client.clientSetName("userwire-publisher").catch(() => {});
    const info = await asked;
    if (/^loading:1/m.test(info)) {
      // It takes no commands yet, and says that it has no append-only file while it reads one.
      this.#fail("Redis is loading its data");
      return;
    }
    const isWhole = /^aof_enabled:1/m.test(info) && !/^master_replid2:(?!0+\r?$)/m.test(info);
    this.#run = `${/^run_id:(\w+)/m.exec(info)?.[1] ?? "unknown"}${isWhole ? "+" : ""}`;
    // What follows on this connection comes after them, so nobody waits.
    for (const command of this.#greetings) this.#client.sendCommand(command).catch(() => {});
    this.#greeted = true;
  }

  #onError(error: unknown): void {
    if (this.#closed) return;
    const weight = weightOf(error);
    // The close that follows does not hide what it follows from.
    if (this.#why !== undefined && weight < this.#weight) return;
    this.#weight = weight;
    const why = explain(error);
    const detail = verbatim(messageOf(error));
    this.#fail(why, detail);
    this.#first.resolve(
      isRefusal(error) ? { outcome: "refused", why, detail } : { outcome: "unreachable", why },
    );
  }

  #fail(why: string, detail?: string): void {
    this.#complaints.make("redis unavailable", why, detail);
    this.#why = why;
  }

  #onAnswer(): void {
    if (this.#closed || !this.#greeted) return;
    if (this.#why !== NOT_YET) {
      this.#backAtMs = performance.now();
      this.#reconnects++;
    }
    this.#why = undefined;
    this.#weight = 0;
    this.#complaints.end();
    this.#vainDials = 0;
    this.#first.resolve({ outcome: "ready" });
    this.#log?.info("redis available");
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}
