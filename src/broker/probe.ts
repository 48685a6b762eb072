/**
 * Tries, every other second, what a service lives on: a connection that is dialled anew and subscribes, a message that
 * is published, counted and arrives, and each script. So `/readyz` does not learn from users that Redis has another
 * password than an hour ago, no room, or a user with too few rights.
 *
 * What is found here makes a node *not ready*: new users had better be sent elsewhere, while those who are there
 * may be served all the same, as nothing refuses their messages until Redis does. *Unavailable* it is only when no
 * command can be sent, or none with a true answer; then sends are refused at once.
 */
import { Attempt } from "../async/attempt.ts";
import { Deadlines } from "../async/deadlines.ts";
import { sleep } from "../async/sleep.ts";
import { ticker } from "../async/ticker.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { Redis } from "../redis/commands.ts";
import type { RedisConnection } from "../redis/raw_connection.ts";
import { REPLICA } from "../redis/server_info.ts";

export interface ProbeOptions {
  readonly redis: Redis;
  /** A channel of this process alone; undefined while nothing is kept there. */
  channel(): string | undefined;
  /** A new connection that is subscribed to it. */
  dial(channel: string, attempt: Attempt): Promise<RedisConnection>;
  /** It was found out whether this Redis counts its subscribers. */
  onCounted(counts: boolean): void;
  /** What was wrong the last time is over. */
  onWorking(): void;
  readonly log?: Log;
}

/** From the end of one trial to the beginning of the next, at least: that is at a tick. */
const PAUSE_MS = 1_400;
const LIMIT_MS = 1_000;
/** How long Redis may take to notice that a subscription was closed. */
const CLOSE_MS = 1_000;

/**
 * When a new connection has led astray, so many trials have to pass in which none did: a balancer before two servers leads
 * to either, and the next user is as likely to be led there as the last.
 */
const CLEAR_TRIALS = 10;

const ENDED = "Redis closed a new subscription";
const UNHEARD = "What is published does not reach what is subscribed";
const ELSEWHERE =
  "New connections lead to another Redis than the one that commands go to: REDIS_URL must lead to one alone";
const ASTRAY: readonly (string | undefined)[] = [REPLICA, ELSEWHERE];

export class Probe {
  readonly #options: ProbeOptions;
  readonly #deadlines = new Deadlines(LIMIT_MS);
  readonly #stop = new AbortController();
  readonly #first = Promise.withResolvers<void>();
  #isStopped = false;
  readonly #running: Promise<void>;
  #reason: string | undefined;
  /** Whether this Redis counts its subscribers; undefined while that is not known. */
  counts: boolean | undefined;
  /** Whether it did not because a subscription was at another server, which may be so for a moment only. */
  #isCountDoubtful = false;
  #trials = 0;
  /** Where a new connection has led last that led astray, and how many trials have yet to pass since then. */
  #astray: string | undefined;
  #suspectTrials = 0;
  /** How many other servers commands went to. */
  #moves = 0;

  constructor(options: ProbeOptions) {
    this.#options = options;
    options.redis.onOtherServer(() => {
      this.counts = undefined;
      this.#suspectTrials = 0;
      this.#moves++;
    });
    this.#running = this.#run();
  }

  /** What was found the last time: a sentence without a full stop that anybody may read. */
  unready(): string | undefined {
    return this.#reason;
  }

  /** Resolves when the first trial has ended, or after the time given. */
  first(withinMs: number): Promise<void> {
    return sleep(withinMs, this.#first.promise);
  }

  async close(): Promise<void> {
    this.#isStopped = true;
    this.#stop.abort();
    this.#first.resolve();
    await this.#running;
    this.#deadlines.close();
  }

  async #run(): Promise<void> {
    const { redis } = this.#options;
    while (!this.#isStopped) {
      await sleep(Infinity, redis.availability.whenReady(), this.#stop.signal);
      if (this.#isStopped) return;
      const moves = this.#moves;
      const found = await this.#trial();
      // What was found on the way to another server says nothing of it.
      if (moves !== this.#moves) continue;
      if (ASTRAY.includes(found)) {
        this.#astray = found;
        this.#suspectTrials = CLEAR_TRIALS;
      } else if (this.#suspectTrials > 0) this.#suspectTrials--;
      const reason = found ?? (this.#suspectTrials > 0 ? this.#astray : undefined);
      // All of Redis is away: that is said already.
      if (redis.availability.reason === undefined) this.#found(reason);
      this.#first.resolve();
      await ticker.pause(PAUSE_MS, this.#stop.signal);
    }
  }

  #found(reason: string | undefined): void {
    if (reason !== undefined && reason !== this.#reason) {
      this.#options.log?.warn("not ready", { reason });
    } else if (reason === undefined && this.#reason !== undefined) {
      this.#options.log?.info("ready again");
      this.#options.onWorking();
    }
    this.#reason = reason;
  }

  async #trial(): Promise<string | undefined> {
    const channel = this.#options.channel();
    if (channel === undefined) return undefined;
    // First, as it names what is forbidden.
    const reason = await this.#options.redis.tryScripts(channel);
    if (reason !== undefined) return reason;
    try {
      if (this.counts === undefined || this.#isCountDoubtful) await this.#findCounts(channel);
      await this.#once(channel).catch((error: unknown) => {
        // Somebody may just have ended that connection: once is no sign.
        if (![ENDED, UNHEARD].includes(messageOf(error))) throw error;
        return this.#once(channel);
      });
    } catch (error) {
      return error instanceof BrokerUnavailableError
        ? error.message
        : `The check failed: ${messageOf(error)}`;
    }
    return undefined;
  }

  async #findCounts(channel: string): Promise<void> {
    const dials = [this.#dial(channel), this.#dial(channel)] as const;
    try {
      const [one, other] = await Promise.all(dials);
      const counts = await this.#counting(channel, one);
      const astray = counts ? undefined : [one, other].find((connection) => this.#isElsewhere(connection));
      this.#isCountDoubtful = astray !== undefined;
      if (counts !== this.counts) this.#options.onCounted(this.counts = counts);
      if (astray) await this.#hear(astray, "");
    } finally {
      // Also the one whose twin was refused.
      for (const dial of dials) await dial.then((connection) => connection.close(), () => {});
    }
  }

  /** Whether a publish counts two subscriptions as two, and after one of them has ended one. */
  async #counting(channel: string, one: RedisConnection): Promise<boolean> {
    if (await this.#count(channel, "") !== 2) return false;
    await one.closeWrite().catch(() => {});
    const endMs = performance.now() + CLOSE_MS;
    for (;;) {
      if (await this.#count(channel, "") === 1) return true;
      if (performance.now() > endMs) return false;
    }
  }

  /** How many a publish reaches; -1 when it is not as many as are listed. */
  async #count(channel: string, payload: string): Promise<number> {
    const { redis } = this.#options;
    const [published, [listed]] = await Promise.all([
      redis.publish(channel, payload),
      redis.ownCounts([channel]),
    ]);
    return published === listed ? published : -1;
  }

  /** One message on its way, from the end at which it is sent to the one at which it is heard. */
  async #once(channel: string): Promise<void> {
    const connection = await this.#dial(channel);
    try {
      const text = String(this.#trials++);
      // Where subscribers are not counted at all, no number says anything.
      if (await this.#count(channel, text) < 1 && this.counts) {
        throw new BrokerUnavailableError(this.#isElsewhere(connection) ? ELSEWHERE : UNHEARD);
      }
      await this.#hear(connection, text);
    } finally {
      connection.close();
    }
  }

  /** What was published arrives. There are services that lead each connection to any of many servers, and publish at all. */
  async #hear(connection: RedisConnection, text: string): Promise<void> {
    try {
      await this.#attempt((attempt) => attempt.step(arrival(connection, text)));
    } catch (error) {
      throw this.#isElsewhere(connection) ? new BrokerUnavailableError(ELSEWHERE) : error;
    }
  }

  /** Whether it is known to be at another server than the commands. */
  #isElsewhere({ life }: RedisConnection): boolean {
    const here = this.#options.redis.server?.life;
    return !!life && !!here && life !== here;
  }

  #dial(channel: string): Promise<RedisConnection> {
    return this.#attempt((attempt) => this.#options.dial(channel, attempt));
  }

  async #attempt<T>(work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const late = () => new BrokerUnavailableError("Redis did not serve a new subscription within a second");
    const attempt = new Attempt(this.#deadlines, { late, signal: undefined });
    try {
      return await work(attempt);
    } finally {
      attempt.end();
    }
  }
}

/** Resolves when the payload has come. @throws {BrokerUnavailableError} when the connection ends before. */
async function arrival(connection: RedisConnection, text: string): Promise<void> {
  const { parser } = connection;
  for (;;) {
    if (parser.message()) {
      if (parser.payload() === text) return;
      continue;
    }
    if (parser.next() !== undefined) continue;
    let count: number | null = null;
    try {
      count = await connection.read();
    } catch {
      // Closed, by one side or the other.
    }
    if (count === null) throw new BrokerUnavailableError(ENDED);
    parser.filled(count);
  }
}
