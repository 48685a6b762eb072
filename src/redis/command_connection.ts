/**
 * The one connection of this process on which commands go to Redis, and whether they can.
 *
 * It promises that no command waits for ever. The client library alone does not: a command that has been written waits
 * as long as Redis hangs, and a hung Redis looks connected. So every command has a deadline, and a heartbeat finds
 * out when Redis has stopped answering.
 */
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import { Complaints } from "../log/warn_once.ts";
import { asUnavailable, type Client, isRefusal, newClient } from "./client_library.ts";
import { Outbox } from "./outbox.ts";
import { evaluateOn } from "./script.ts";
import { changeOf, readInfo, type ServerInfo, unfitnessOf } from "./server_info.ts";
import type { Topology } from "./topology.ts";
import type { Ask, Watch } from "./watch.ts";
import { explain, isReadOnly, isReply, MAYBE_TLS, verbatim, weightOf } from "./error_text.ts";

export interface RedisOptions {
  /** How long a command may take, in milliseconds. @default 3000 */
  timeoutMs?: number;
  log?: Log;
}

/** How the first attempt to connect ended. */
export type FirstAttempt =
  | { outcome: "ready" }
  /** Redis answered, and would not let us in: waiting will not help. What it said is for the operator only. */
  | { outcome: "refused"; why: string; detail?: string; remedy: string }
  /** Nobody answered; attempts go on. */
  | { outcome: "unreachable"; why: string };

const DEFAULT_TIMEOUT_MS = 3_000;
const TICK_MS = 250;
const HEARTBEAT_MS = 1_000;
/** A heartbeat without an answer for so long, nor anything else with one, is a bad sign. */
const SILENT_MS = 1_250;
const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1_000;
const NOT_YET = "Redis is not connected yet";
const NO_ANSWER = "Redis does not answer";

export abstract class CommandConnection {
  protected readonly topology: Topology;
  readonly #log: Log | undefined;
  readonly #complaints: Complaints;
  readonly #outbox: Outbox;
  readonly #first = Promise.withResolvers<FirstAttempt>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #greetings: (readonly string[])[] = [];
  readonly #watches: Watch[] = [];
  readonly #onOther: (() => void)[] = [];
  readonly #onReturn: (() => void)[] = [];
  #client: Client;
  /** The connection that has ended last. */
  #ended: Client | undefined;
  /** The connection on which a heartbeat is under way. */
  #beating: Client | undefined;
  #beatAtMs = Infinity;
  #isSilent = false;
  #dialTimer: ReturnType<typeof setTimeout> | undefined;
  /** Whether it is dialled without TLS. */
  #isPlain = true;
  /** Connections that ended before Redis said who it is, one after the other. */
  #vainDials = 0;
  #backAtMs = -Infinity;
  #reconnects = 0;
  /** Who was greeted last; stays when that connection ends. */
  #server: ServerInfo | undefined;
  #waiters: (() => void)[] = [];
  #why: string | undefined = NOT_YET;
  /** How much is known of why this connection fails; see `weightOf`. */
  #weight = 0;
  /** Whether Redis has said which life it lives, on this connection. */
  #greeted = false;
  #closed = false;
  #nextBeatMs = 0;

  protected constructor(topology: Topology, options: RedisOptions) {
    this.topology = topology;
    topology.onChange((reason) => this.dialAnew(reason));
    this.#log = options.log;
    this.#outbox = new Outbox({
      timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      onAnswer: () => {
        if (this.#why !== undefined) this.#onAnswer();
      },
      failure: (error) => this.failure(error),
    });
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

  /**
   * What is wrong when Redis may hang: it has not answered for more than a second. A sentence without a full stop, and
   * undefined otherwise. What is sent to it waits all the same, for it may go on.
   */
  silence(): string | undefined {
    return this.#isSilent ? NO_ANSWER : undefined;
  }

  /** When Redis came back the last time, on the clock of `performance.now()`; -Infinity while it was never away. */
  get backAtMs(): number {
    return this.#backAtMs;
  }

  /** How often it came back. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** Who was greeted last; undefined before the first greeting. Its `life` changes with its data. */
  get server(): ServerInfo | undefined {
    return this.#server;
  }

  /** Lets somebody look at each server before anything else is asked of it, and once a second from then on. */
  watchWith(watch: Watch): void {
    this.#watches.push(watch);
  }

  /** Calls back when another server is greeted than before, or one with other data; no command has been sent to it. */
  onOtherServer(listener: () => void): void {
    this.#onOther.push(listener);
  }

  /** Calls back when Redis answers again, after it was away. */
  onReturn(listener: () => void): void {
    this.#onReturn.push(listener);
  }

  /** Leaves the connection, and dials again. */
  dialAnew(why: string): void {
    if (!this.#closed && this.#greeted) this.#leave(why);
  }

  /** Looks at the server now: somebody has found other data than before. Resolves when it was looked at, or can't be. */
  async lookNow(): Promise<void> {
    const client = this.#client;
    // One that was not greeted is looked at before anything is sent to it.
    if (!this.#greeted) return;
    await this.#outbox.sendNow(() => this.#look(client)).catch(() => {}); // whoever sends next is told
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
    this.#outbox.abandon(this.#why);
    this.#wake();
    this.#client.destroy();
    return Promise.resolve();
  }

  /**
   * Issues a command, unless it is known that it can't be sent.
   * @param bytes Roughly its size, where it may be large.
   * @throws {BrokerUnavailableError} also when Redis refuses it, or has not answered in time.
   */
  protected command<T>(issue: (client: Client) => Promise<T>, bytes = 0): Promise<T> {
    const why = this.unavailable();
    if (why !== undefined) return Promise.reject(new BrokerUnavailableError(why));
    return this.#outbox.send(() => issue(this.#client), bytes);
  }

  /** From the next connection on, sends this before anything else. Nobody hears what comes of it. */
  protected greetWith(command: readonly string[]): void {
    this.#greetings.push(command);
  }

  #dial(): Client {
    this.#weight = 0;
    const address = this.topology.locate();
    this.#isPlain = address.transport === "tcp";
    const client = newClient(address);
    // Ready is what the library calls a connection on which Redis may not have said a word: so it is asked.
    client.on("ready", () => {
      this.#greeted = false;
      this.#beat();
    });
    // Without a listener an error would end the client in silence.
    client.on("error", (error: unknown) => {
      if (client === this.#client) this.#onError(error);
    });
    client.on("terminated", () => {
      if (client === this.#client) this.#redial();
    });
    client.connect().catch(() => {}); // its events have said it
    return client;
  }

  /**
   * Dials again, at once when Redis had answered on the connection that ended. The library would do so also when it
   * had not: a Redis that accepts and hangs up, as one that does not like our certificate, would be dialled as fast as
   * the network allows.
   */
  #redial(): void {
    if (this.#closed || this.#ended === this.#client) return;
    this.#ended = this.#client;
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

  /** Ends a connection whose server is of no use, and dials again. */
  #leave(why: string): void {
    this.#fail(why);
    // The end of the connection does not hide why it was ended.
    this.#weight = 2;
    this.#client.destroy();
    this.#redial();
  }

  /** What a command is rejected with when this is what came of it. */
  protected failure(cause: unknown): { error: Error; isAnswer: boolean } {
    const error = asUnavailable(cause);
    this.complain("redis refused a command", error.message, error.cause);
    if (this.#greeted && isReadOnly(cause)) this.#leave(error.message);
    return { error, isAnswer: isReply(cause) };
  }

  #tick(): void {
    const nowMs = performance.now();
    // Where more is known already, that is said.
    if (this.#outbox.check(nowMs) && (this.#why === undefined || this.#why === NOT_YET)) {
      this.#fail(NO_ANSWER);
    }
    this.#isSilent = nowMs - Math.max(this.#beatAtMs, this.#outbox.answeredAtMs) > SILENT_MS;
    if (nowMs >= this.#nextBeatMs && this.#client.isReady) this.#beat();
  }

  /** Asks the server whether it is still who it was; at first, who it is. */
  #beat(): void {
    const client = this.#client;
    if (this.#beating === client) return;
    this.#beating = client;
    this.#beatAtMs = performance.now();
    this.#nextBeatMs = this.#beatAtMs + HEARTBEAT_MS;
    const ended = () => {
      if (this.#beating !== client) return;
      this.#beating = undefined;
      this.#beatAtMs = Infinity;
    };
    // A beat without an answer is seen by its deadline or by the client's error event.
    this.#outbox.sendNow<unknown>(() =>
      (this.#greeted ? this.#look(client) : this.#greet(client)).finally(ended)
    ).catch(({ cause }: BrokerUnavailableError) => {
      if (isReply(cause) && client === this.#client) this.#onError(cause);
    });
  }

  /** Asks what has to be known before anything is sent. */
  async #greet(client: Client): Promise<void> {
    // First: what refuses the connection, as a Redis that is full does, comes as the answer to it.
    const asked = client.info();
    // Only for whoever reads CLIENT LIST: a Redis that forbids it serves us all the same.
    client.clientSetName("userwire-publisher").catch(() => {});
    const info = await asked;
    if (client !== this.#client) return;
    const server = readInfo(info);
    const unfit = unfitnessOf(server);
    if (unfit) {
      const { why, remedy } = unfit;
      // One that loads will be what it says.
      if (server.isLoading) return this.#fail(why);
      this.#first.resolve(
        remedy === undefined ? { outcome: "unreachable", why } : { outcome: "refused", why, remedy },
      );
      return this.#leave(why);
    }
    // What follows on this connection comes after them, so nobody waits.
    for (const command of this.#greetings) client.sendCommand(command).catch(() => {});
    const why = await this.#askWatches(client, server, true);
    if (client !== this.#client || this.#ended === client) return;
    if (why !== undefined) {
      this.#nextBeatMs = performance.now() + TICK_MS;
      return this.#fail(why);
    }
    const isOther = this.#server !== undefined && this.#server.life !== server.life;
    this.#server = server;
    this.#greeted = true;
    if (isOther) { for (const listener of this.#onOther) listener(); }
  }

  async #look(client: Client): Promise<void> {
    const now = readInfo(await client.info("replication"));
    if (client !== this.#client || !this.#greeted) return;
    const server = this.#server!;
    const change = changeOf(server, now);
    if (change !== undefined) return this.#leave(change);
    const why = await this.#askWatches(client, server, false);
    if (why === undefined || client !== this.#client || !this.#greeted) return;
    // It is greeted anew with the next beat.
    this.#greeted = false;
    this.#fail(why);
  }

  async #askWatches(client: Client, server: ServerInfo, isGreeting: boolean): Promise<string | undefined> {
    for (const watch of this.#watches) {
      const ask: Ask = (script, keys, args) => evaluateOn(client, script, keys, args);
      // What Redis refuses to a watch is no refused login: it may be granted while we run.
      const why = await watch.look(ask, server, isGreeting).catch((error: unknown) => {
        if (!isReply(error) || isReadOnly(error)) throw error;
        this.#complaints.make("redis refused a command", explain(error), verbatim(messageOf(error)));
        return explain(error);
      });
      if (why !== undefined) return why;
    }
    return undefined;
  }

  #onError(error: unknown): void {
    if (this.#closed) return;
    const weight = weightOf(error);
    // The close that follows does not hide what it follows from.
    if (this.#why !== undefined && weight < this.#weight) return;
    this.#weight = weight;
    // A TLS port that is not spoken to in TLS just hangs up. One that has served us before is another matter.
    const isMaybeTls = weight === 0 && this.#server === undefined && this.#isPlain;
    const why = explain(error) + (isMaybeTls ? MAYBE_TLS : "");
    const detail = verbatim(messageOf(error));
    this.#fail(why, detail);
    const isRefused = isRefusal(error);
    if (isRefused) this.topology.loginRefused();
    const remedy = "correct the user and password in it";
    this.#first.resolve(
      isRefused ? { outcome: "refused", why, detail, remedy } : { outcome: "unreachable", why },
    );
  }

  #fail(why: string, detail?: string): void {
    this.#complaints.make("redis unavailable", why, detail);
    this.#why = why;
    this.#outbox.refuse(why);
  }

  #onAnswer(): void {
    if (this.#closed || !this.#greeted) return;
    const isReturn = this.#why !== NOT_YET;
    if (isReturn) {
      this.#backAtMs = performance.now();
      this.#reconnects++;
    }
    this.#why = undefined;
    this.#weight = 0;
    this.#complaints.end();
    this.#vainDials = 0;
    this.#first.resolve({ outcome: "ready" });
    this.#log?.info("redis available");
    if (isReturn) { for (const listener of this.#onReturn) listener(); }
    this.#wake();
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }
}
