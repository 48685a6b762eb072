/**
 * Dials the pub/sub connections of this process: where its channels live now, within the time there is for a
 * subscription, and once more when all had to be dialled again meanwhile.
 */
import { Attempt } from "../async/attempt.ts";
import { Deadlines } from "../async/deadlines.ts";
import { Semaphore } from "../async/semaphore.ts";
import { Pace } from "../async/slices.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Redis } from "../redis/commands.ts";
import { PLAIN, type PubSubWords } from "../redis/pubsub_words.ts";
import type { PubSubContext } from "../redis/pubsub_connection.ts";
import { type OpenOptions, RedisConnection } from "../redis/raw_connection.ts";
import { encodeCommand } from "../redis/resp.ts";
import type { Topology } from "../redis/topology.ts";

/** How long Redis may take to confirm that nobody listens any more. */
const CLOSE_MS = 1_000;
/**
 * What was lost is dialled so many at one time. Each has its time from its turn on: where all are lost, those at the end
 * of the line would else be late again and again, before anybody had dialled them.
 */
const MAX_REDIALS = 64;

export class Dialler implements PubSubContext {
  readonly closeDeadlines = new Deadlines(CLOSE_MS);
  readonly pace = new Pace();
  readonly #redials = new Semaphore(MAX_REDIALS);
  readonly #subscribing: Deadlines;
  readonly #topology: Topology;
  readonly #redis: Redis;
  readonly #onLoginRefused = () => this.#topology.loginRefused();
  /** How often all had to be dialled again. */
  #generation = 0;

  /** @param options.timeoutMs How long a subscription may take. The connection for commands is the caller's to close. */
  constructor(options: { topology: Topology; redis: Redis; timeoutMs: number }) {
    const { topology, redis, timeoutMs } = options;
    this.#subscribing = new Deadlines(timeoutMs);
    this.#topology = topology;
    this.#redis = redis;
    // The commands go to another server than before, or to other data: so must all subscriptions.
    redis.onOtherServer(() => this.#generation++);
  }

  /**
   * @throws {BrokerUnavailableError}
   * @throws the signal's reason.
   */
  async attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const { limitMs } = this.#subscribing;
    const late = () =>
      new BrokerUnavailableError(`Redis did not confirm a subscription within ${limitMs} ms`);
    const attempt = new Attempt(this.#subscribing, { late, signal });
    try {
      return await work(attempt);
    } catch (error) {
      if (error instanceof BrokerUnavailableError) {
        this.#redis.availability.warn("subscription failed", error.message, error.cause);
      }
      throw error;
    } finally {
      attempt.end();
    }
  }

  /**
   * As `attempt`, for what was lost and has nobody who waits for it: there is time enough until it is its turn.
   * @throws as `attempt`.
   */
  async redial<T>(signal: AbortSignal, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const waiting = new Attempt(undefined, { signal });
    try {
      await this.pace.turn();
      return await this.#redials.run(() => this.attempt(signal, work), waiting);
    } finally {
      waiting.end();
    }
  }

  /**
   * A new connection, logged in, on which the commands have been answered.
   * @param channel Where this lives; without one, where all of them do.
   */
  async dial(attempt: Attempt, options: OpenOptions, channel?: string): Promise<RedisConnection> {
    // Of a cluster's nodes the map says which are masters.
    const onlyMaster = options.onlyMaster === true && this.words === PLAIN;
    const own = { ...options, onlyMaster, onLoginRefused: this.#onLoginRefused, pace: this.pace };
    for (;;) {
      const generation = this.#generation;
      const address = this.#topology.locate(channel);
      if (!address) throw new BrokerUnavailableError("It is not known yet where Redis is");
      let connection: RedisConnection;
      try {
        connection = await RedisConnection.open(address, attempt, own);
      } catch (error) {
        this.#topology.doubt();
        throw error;
      }
      connection.generation = generation;
      if (generation === this.#generation) return connection;
      connection.close();
    }
  }

  /** A new connection that is subscribed to one channel, after what else is asked on it. */
  dialSubscribed(channel: string, attempt: Attempt, options: OpenOptions): Promise<RedisConnection> {
    const commands = [...options.commands ?? [], encodeCommand(this.words.subscribe, channel)];
    return this.dial(attempt, { ...options, commands }, channel);
  }

  /** What pub/sub is called there. */
  get words(): PubSubWords {
    return this.#topology.words;
  }

  /** Redis no longer has what it had. */
  doubt(): void {
    this.#topology.doubt();
  }

  whenReady(): Promise<void> {
    return this.#redis.availability.whenReady();
  }

  isOld({ generation }: RedisConnection): boolean {
    return generation !== this.#generation;
  }

  /** Call it when all connections are closed. */
  close(): void {
    this.#subscribing.close();
    this.closeDeadlines.close();
  }
}
