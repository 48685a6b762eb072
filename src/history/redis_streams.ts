/**
 * The history in Redis: per user a stream whose ids are the sequence numbers, a counter with its epoch, and the
 * idempotency keys. All keys of a user share the hash slot of the user's channel.
 *
 *     userwire:{<channel>}:position   hash    seq, epoch, tag: <seq>.<tag of the newest>, timeline, former, ends: Unix ms of the inbox
 *     userwire:{<channel>}:inbox      stream  <seq>-0 → m: envelope, x: Unix ms at which it has left
 *     userwire:{<channel>}:key:<key>  hash    what the first send with this key came to
 *     userwire:<prefix>call:<key>     string  what a key of many sends stands for, and of how many calls
 *
 * Messages to groups are in `redis_runs.ts`.
 *
 * One script per send: scripts run alone, so check, count, number, store and publish are one step, and it is done whole or
 * not at all. A message to many users is one script for a portion of them, which does that for one after the other: most of
 * what a send costs this process is the call. Times are those of Redis' own clock.
 *
 * `timeline` tells an unbroken run of writes from the next one (`timeline.ts` says how). When the data was set back, the
 * counter would give out numbers that clients have seen; so the first script of a new timeline begins a new epoch
 * and notes in `former` from where the numbers of the old one can't be trusted; the new one's name says it too, for a
 * timeline that ends before its epochs were saved (`originOf`).
 */
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Position } from "../protocol/position.ts";
import {
  historyKey,
  idempotencyKey,
  logMessage,
  OTHER_DATA,
  positionKey,
  publicMessageOfReply,
  type Redis,
  type Script,
} from "../redis/commands.ts";
import { APPEND_EACH, optionsOfEach, replyIn } from "./append_each_script.ts";
import { APPEND_TO_ALL, type AppendReply, appendScript } from "./append_script.ts";
import { CLAIM, claimKey, RELEASE } from "./claim_script.ts";
import { newEpoch, newEpochs } from "./epochs.ts";
import type {
  Appended,
  AppendOptions,
  History,
  HistoryLimits,
  Idempotency,
  OpenedRun,
  OutgoingMessage,
  Page,
  PageOptions,
  PageOutcome,
  Run,
  RunPage,
  Send,
} from "./history.ts";
import { CLAIM_TTL_MS, COUNTER_TTL_MS, IDEMPOTENCY_TTL_MS } from "./lifetimes.ts";
import { LastAppends } from "./last_appends.ts";
import type { Lineage, Part } from "./lineage.ts";
import { RedisReads } from "./redis_reads.ts";
import { RedisRuns } from "./redis_runs.ts";
import { Timeline } from "./timeline.ts";

/** Where each message stands for itself. */
const NO_MESSAGE: OutgoingMessage = { id: "", head: "", tail: "" };

export class RedisStreamsHistory implements History {
  readonly limits: HistoryLimits;
  readonly #redis: Redis;
  readonly #timeline: Timeline;
  readonly #remembered = new LastAppends();
  readonly #append: Script;
  /** Public for a history over several. */
  readonly runs: RedisRuns;
  /** Set while a look is under way at the data that has taken the place of ours. */
  #looked: Promise<void> | undefined;
  readonly #reads: RedisReads;

  /**
   * @param redis Stays the caller's to close.
   * @param options.onCount Called with each read: how many subscriptions the channel has.
   * @param options.part Of a cluster, and what is known of its other parts.
   */
  constructor(
    redis: Redis,
    options: {
      limits: HistoryLimits;
      onCount?: (channel: string, count: number) => void;
      part?: Part | undefined;
      lineage?: Lineage;
    },
  ) {
    this.#redis = redis;
    this.#timeline = new Timeline(options.part, options.lineage);
    this.limits = options.limits;
    this.#append = appendScript(this.limits.count);
    redis.prepare(this.#append, APPEND_TO_ALL, APPEND_EACH, CLAIM, RELEASE);
    this.runs = new RedisRuns({
      redis,
      timeline: this.#timeline,
      limits: this.limits,
      isPart: options.part !== undefined,
      remembered: this.#remembered,
      message: (message, options) => this.#message(message, options),
      onData: (run) => this.#onData(run),
    });
    this.#reads = new RedisReads({
      redis,
      timeline: this.#timeline,
      limits: this.limits,
      remembered: this.#remembered,
      onCount: options.onCount ?? (() => {}),
    });
    if (this.limits.count === 0) return;
    redis.watchWith(this.#timeline);
  }

  /** Of the data that it is on. */
  get timeline(): Timeline {
    return this.#timeline;
  }

  async append(channel: string, message: OutgoingMessage, options: AppendOptions = {}): Promise<Appended> {
    const run = () =>
      this.#redis.evaluate(this.#append, this.#keys([channel], options), [
        ...this.#message(message, options),
        channel,
        newEpoch(),
        this.#remembered.of(channel),
        ...this.#elsewhere(channel),
      ]);
    return this.#appended(channel, await this.#onData(run) as AppendReply);
  }

  async appendToAll(
    channels: readonly string[],
    message: OutgoingMessage,
    options: AppendOptions = {},
  ): Promise<PromiseSettledResult<Appended>[]> {
    const run = () =>
      this.#redis.evaluateEach(APPEND_TO_ALL, this.#keys(channels, options), [
        ...this.#message(message, options),
        newEpochs(channels.length),
        ...channels,
        ...channels.map((channel) => this.#remembered.of(channel)),
      ]);
    return await this.#settled(run, (i) => channels[i]!);
  }

  async appendEach(sends: readonly Send[]): Promise<PromiseSettledResult<Appended>[]> {
    const run = () => {
      const keys = [this.#timeline.markKey ?? positionKey(sends[0]!.channel)];
      const args = [...this.#message(NO_MESSAGE, {}), newEpochs(sends.length)];
      for (const { channel, message, options } of sends) {
        const { idempotency } = options;
        keys.push(positionKey(channel), historyKey(channel));
        if (idempotency) keys.push(idempotencyKey(channel, idempotency.key));
        args.push(channel, message.head, message.tail, this.#remembered.of(channel));
        args.push(optionsOfEach(message.id, options, this.limits));
      }
      return this.#redis.evaluateEach(APPEND_EACH, keys, args);
    };
    return await this.#settled(
      run,
      (i) => sends[i]!.channel,
      (reply, i) => typeof reply === "string" ? replyIn(reply, sends[i]!.message.id) : reply as AppendReply,
    );
  }

  /**
   * Runs a script that answers for each of several appends.
   * @param read Of the nth answer.
   */
  async #settled(
    run: () => Promise<unknown[]>,
    channelOf: (nth: number) => string,
    read = (reply: unknown, _nth: number) => reply as AppendReply,
  ): Promise<PromiseSettledResult<Appended>[]> {
    const replies = await this.#onData(run) as unknown[];
    return replies.map((reply, i) => {
      try {
        if (reply instanceof Error) throw reply;
        return { status: "fulfilled", value: this.#appended(channelOf(i), read(reply, i)) };
      } catch (reason) {
        return { status: "rejected", reason };
      }
    });
  }

  openRun(...args: Parameters<History["openRun"]>): Promise<OpenedRun> {
    return this.runs.open(...args);
  }

  appendPage(
    run: Run,
    page: RunPage,
    message: OutgoingMessage,
    options: PageOptions = {},
  ): Promise<PageOutcome> {
    return this.runs.append(run, page, message, options);
  }

  leaveRun(run: Run): Promise<void> {
    return this.runs.leave(run);
  }

  /**
   * Runs a script that appends. Where other data has taken the place of that which was looked at, it looks at it, and runs
   * the script once more.
   */
  async #onData(run: () => Promise<unknown>): Promise<unknown> {
    // After the look that is under way, a turn later than below: what was refused for it goes first.
    if (this.#looked) await this.#looked.then(() => {});
    const reply = await run() as unknown[];
    if (reply[0] !== "replaced") return reply;
    this.#looked ??= this.#redis.lookNow().finally(() => this.#looked = undefined);
    await this.#looked;
    const later = await run() as unknown[];
    if (later[0] === "replaced") throw new BrokerUnavailableError(OTHER_DATA);
    return later;
  }

  /** What `OPEN_POSITION` reads, where there is anything. */
  #elsewhere(channel: string): string[] {
    const names = this.#timeline.elsewhere(channel);
    return names === "" ? [] : [names];
  }

  /** First the key of the mark; then those of each user. */
  #keys(channels: readonly string[], { idempotency }: AppendOptions): string[] {
    const keys = [this.#timeline.markKey ?? positionKey(channels[0]!)];
    for (const channel of channels) {
      keys.push(positionKey(channel), historyKey(channel));
      if (idempotency) keys.push(idempotencyKey(channel, idempotency.key));
    }
    return keys;
  }

  /** What `MESSAGE` reads. */
  #message(message: OutgoingMessage, { ttlMs, expectOnline, idempotency }: AppendOptions): string[] {
    return [
      message.head,
      message.tail,
      message.id,
      String(this.limits.count),
      String(ttlMs ?? this.limits.ttlMs),
      String(COUNTER_TTL_MS),
      this.#timeline.name,
      expectOnline ? "1" : "0",
      idempotency?.fingerprint ?? "",
      String(IDEMPOTENCY_TTL_MS),
      this.#timeline.markKey === undefined ? "" : "1",
    ];
  }

  /** @throws {BrokerUnavailableError} when it may have been appended. */
  #appended(channel: string, [outcome, id, seq, epoch, reached, tag]: AppendReply): Appended {
    if (outcome === "offline" || outcome === "conflict") return { outcome };
    if (outcome === "unknown" || outcome === "replaced") {
      throw new BrokerUnavailableError(publicMessageOfReply(id), {
        outcome: "unknown",
        cause: logMessage(id),
      });
    }
    if (seq === "") return { outcome, id, position: undefined, reached: Number(reached) };
    const position = { epoch, seq: Number(seq) };
    // Without one it is what an earlier send came to.
    if (tag !== undefined) {
      this.#remembered.note(channel, position.seq, tag, Number(reached));
      if (this.#timeline.appended(channel, position.seq, tag)) void this.#redis.lookNow();
    }
    return { outcome, id, position, reached: Number(reached) };
  }

  async claim(prefix: string, { key, fingerprint }: Idempotency): Promise<boolean> {
    const args = [fingerprint, String(CLAIM_TTL_MS)];
    return await this.#redis.evaluate(CLAIM, [claimKey(prefix, key)], args) === 1;
  }

  async release(prefix: string, { key, fingerprint }: Idempotency): Promise<void> {
    await this.#redis.evaluate(RELEASE, [claimKey(prefix, key)], [fingerprint, String(CLAIM_TTL_MS)]);
  }

  since(...args: Parameters<History["since"]>): Promise<Page> {
    return this.#reads.since(...args);
  }

  left(channel: string, { seq, tag }: Position): void {
    this.#remembered.noteLeft(channel, seq, tag!);
  }

  onSetBack(listener: () => void): void {
    this.#timeline.onNew(listener);
  }
}
