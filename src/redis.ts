/**
 * The one connection of this process on which commands go to Redis: publishing, counting, and whatever is
 * stored there. The only file that knows the client library. Subscriptions have connections of their own, in
 * `broker/`.
 *
 * It promises that no command waits for ever. The library alone does not: a command that has been written
 * waits as long as Redis hangs, and a hung Redis looks connected. So every command has a deadline, and a
 * heartbeat finds out when Redis has stopped answering.
 */
import { createHash } from "node:crypto";
import { createClient } from "redis";
import { BrokerUnavailableError, messageOf } from "./errors.ts";
import type { Log } from "./log.ts";

/** What `rediss://` needs beyond the public certificate authorities; all PEM text. */
export interface RedisTls {
  readonly ca?: string;
  /** The client's own certificate, and its private key. */
  readonly cert?: string;
  readonly key?: string;
}

export interface RedisOptions {
  tls?: RedisTls;
  /** How long a command may take, in milliseconds. @default 3000 */
  timeoutMs?: number;
  log?: Log;
}

/** A Lua script, known to Redis by its hash. It has keys; called without any it does nothing. */
export class Script {
  readonly source: string;
  readonly sha: string;

  constructor(source: string) {
    this.source = `if #KEYS == 0 then return end\n${source}`;
    this.sha = createHash("sha1").update(this.source).digest("hex");
  }
}

/** How the first attempt to connect ended. */
export type FirstAttempt =
  | { outcome: "ready" }
  /** Redis answered, and would not let us in: waiting will not help. */
  | { outcome: "refused"; why: string }
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
/** A connection on which nothing came for so long is given up and dialled again. */
const SILENCE_MS = 10_000;
const NOT_YET = "Redis is not connected yet";

export class Redis {
  readonly #url: string;
  readonly #tls: RedisTls | undefined;
  readonly #timeoutMs: number;
  readonly #log: Log | undefined;
  readonly #pending = new Set<Pending>();
  readonly #first = Promise.withResolvers<FirstAttempt>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #prepared: Script[] = [];
  #client: ReturnType<typeof newClient>;
  #dialTimer: ReturnType<typeof setTimeout> | undefined;
  /** Connections that ended before Redis said who it is, one after the other. */
  #vainDials = 0;
  #backAtMs = -Infinity;
  #reconnects = 0;
  #run = "";
  #waiters: (() => void)[] = [];
  #why: string | undefined = NOT_YET;
  /** Whether Redis has said which life it lives, on this connection. */
  #greeted = false;
  #closed = false;
  #nextBeatMs = 0;

  private constructor(url: string, options: RedisOptions) {
    this.#url = url;
    this.#tls = options.tls;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#log = options.log;
    this.#client = this.#dial();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Starts connecting and returns at once; see `unavailable`. */
  static open(url: string, options: RedisOptions = {}): Redis {
    return new Redis(url, options);
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

  /** Undefined while commands can be sent; else what is wrong, as a sentence without a full stop. */
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

  /** Resolves when commands can be sent, or this is closed. */
  whenReady(): Promise<void> {
    if (this.unavailable() === undefined || this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** @returns How many subscriptions Redis handed the payload to. */
  publish(channel: string, payload: string): Promise<number> {
    return this.#command(() => this.#client.publish(channel, payload));
  }

  /** @returns How many subscriptions each channel has, in the order asked. */
  async subscriberCounts(channels: readonly string[]): Promise<number[]> {
    if (channels.length === 0) return [];
    const counts = await this.#command(() =>
      this.#client.sendCommand<unknown[]>(["PUBSUB", "NUMSUB", ...channels])
    );
    // The reply alternates names and numbers.
    return channels.map((_, i) => Number(counts[2 * i + 1]));
  }

  /** How many connections Redis has, and how many it takes: Infinity when it does not say, as before 6.2. */
  async clients(): Promise<{ connected: number; max: number }> {
    const info = await this.#command(() => this.#client.info("clients"));
    return {
      connected: Number(/^connected_clients:(\d+)/m.exec(info)?.[1]),
      max: Number(/^maxclients:(\d+)/m.exec(info)?.[1] ?? Infinity),
    };
  }

  /**
   * Makes scripts known to Redis on every connection from the next one on, before anything is sent on it. Without that
   * the first batch after a restart would be told a thousand times that the script is not there.
   */
  prepare(...scripts: Script[]): void {
    this.#prepared.push(...scripts);
  }

  /** Runs a script, alone and whole; all keys must share a hash slot. */
  evaluate(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...args];
    return this.#command(async () => {
      try {
        return await this.#client.sendCommand(["EVALSHA", script.sha, ...rest]);
      } catch (error) {
        // Redis forgets scripts when it restarts, or is told to.
        if (!messageOf(error).startsWith("NOSCRIPT")) throw error;
        return await this.#client.sendCommand(["EVAL", script.source, ...rest]);
      }
    });
  }

  /** Ends the connection. Commands still waiting are rejected at once. */
  close(): Promise<void> {
    if (this.#closed) return Promise.resolve();
    this.#closed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#dialTimer);
    this.#why = "The connection to Redis is closed";
    this.#rejectPending(this.#why);
    this.#wake();
    this.#client.destroy();
    return Promise.resolve();
  }

  #dial(): ReturnType<typeof newClient> {
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

  #command<T>(issue: () => Promise<T>): Promise<T> {
    const why = this.unavailable();
    if (why !== undefined) return Promise.reject(new BrokerUnavailableError(why));
    return this.#issue(issue);
  }

  #issue<T>(issue: () => Promise<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const pending: Pending = { dueMs: performance.now() + this.#timeoutMs, reject };
    this.#pending.add(pending);
    issue().then((value) => {
      this.#pending.delete(pending);
      if (this.#why !== undefined) this.#onAnswer();
      resolve(value);
    }, (error: unknown) => {
      this.#pending.delete(pending);
      reject(asUnavailable(error));
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
    this.#issue<unknown>(() => this.#greeted ? this.#client.ping() : this.#greet()).catch(
      ({ cause }: BrokerUnavailableError) => {
        if (isReply(cause)) this.#onError(cause);
      },
    );
  }

  /** Asks what has to be known before anything is sent. */
  async #greet(): Promise<void> {
    // Only for whoever reads CLIENT LIST: a Redis that forbids it serves us all the same.
    this.#client.clientSetName("userwire-publisher").catch(() => {});
    const info = await this.#client.info();
    if (/^loading:1/m.test(info)) {
      // It takes no commands yet, and says that it has no append-only file while it reads one.
      this.#fail("Redis is loading its data");
      return;
    }
    const isWhole = /^aof_enabled:1/m.test(info) && !/^master_replid2:(?!0+\r?$)/m.test(info);
    this.#run = `${/^run_id:(\w+)/m.exec(info)?.[1] ?? "unknown"}${isWhole ? "+" : ""}`;
    // What follows on this connection comes after them, so nobody waits. Not SCRIPT LOAD, which is a right of its own.
    for (const { source } of this.#prepared) this.#client.sendCommand(["EVAL", source, "0"]).catch(() => {});
    this.#greeted = true;
  }

  #onError(error: unknown): void {
    if (this.#closed) return;
    const why = explain(error);
    this.#fail(why);
    this.#first.resolve({ outcome: isRefusal(error) ? "refused" : "unreachable", why });
  }

  #fail(why: string): void {
    // Attempts repeat; the log says a thing once.
    if (this.#why !== why) this.#log?.warn("redis unavailable", { reason: why });
    this.#why = why;
  }

  #onAnswer(): void {
    if (this.#closed || !this.#greeted) return;
    if (this.#why !== NOT_YET) {
      this.#backAtMs = performance.now();
      this.#reconnects++;
    }
    this.#why = undefined;
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

  #rejectPending(why: string): void {
    for (const pending of this.#pending) {
      pending.reject(new BrokerUnavailableError(why, { outcome: "unknown" }));
    }
    this.#pending.clear();
  }
}

function newClient(url: string, tls: RedisTls | undefined) {
  return createClient({
    url,
    // RESP2 needs no greeting and is spoken by every Redis.
    RESP: 2,
    maintNotifications: "disabled",
    disableClientInfo: true,
    // A command given while there is no connection fails at once, so that the caller can say so.
    disableOfflineQueue: true,
    // Its own deadlines cost a signal and a timer for each command; ours are in `#pending`.
    commandOptions: { timeout: 0 },
    socket: {
      ...(url.startsWith("rediss:") && { tls: true as const, ...tls }),
      connectTimeout: 3_000,
      socketTimeout: SILENCE_MS,
      // When to try again is decided here: see #redial.
      reconnectStrategy: false,
    },
  });
}

/** Whether it is Redis itself that says no. */
function isReply(error: unknown): boolean {
  const name = nameOf(error);
  return name.endsWith("ErrorReply") || name === "SimpleError";
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.constructor.name : "";
}

/** Whether Redis answered and would not let us in. */
function isRefusal(error: unknown): boolean {
  return /^(WRONGPASS|NOAUTH|NOPERM|ERR AUTH|ERR invalid password|ERR Client sent AUTH)/.test(
    messageOf(error),
  );
}

function explain(error: unknown): string {
  const message = messageOf(error);
  if (/^(WRONGPASS|ERR invalid password)/.test(message)) return "Redis refused the password or the user";
  if (/^NOAUTH/.test(message)) return "Redis wants a password";
  if (/^ERR (Client sent )?AUTH/.test(message)) return "Redis was given a password but has none configured";
  if (/alert: CertificateRequired/.test(message)) {
    return "Redis wants to see a client certificate: set REDIS_CERT and REDIS_KEY";
  }
  if (/fatal alert/.test(message)) return `Redis refused the TLS connection: ${message}`;
  return `Redis is not available: ${message}`;
}

function asUnavailable(error: unknown): BrokerUnavailableError {
  const name = nameOf(error);
  const answered = isReply(error);
  const unsent = name === "ClientOfflineError" || name === "ClientClosedError";
  return new BrokerUnavailableError(
    answered
      ? `Redis refused the command: ${messageOf(error)}`
      : `Redis is not available: ${messageOf(error)}`,
    { outcome: answered || unsent ? "refused" : "unknown", cause: error },
  );
}
