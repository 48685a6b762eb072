/** Runs in Redis: one message to many users, page after page, see `Run`. On a cluster, the part of one that is on one master. */
import { BrokerUnavailableError } from "../protocol/errors.ts";
import {
  historyKey,
  idempotencyKey,
  isRefusedForAll,
  positionKey,
  publicMessageOfReply,
  type Redis,
} from "../redis/commands.ts";
import { newEpoch, newEpochs } from "./epochs.ts";
import {
  type HistoryLimits,
  NOTHING_DONE,
  type OpenedRun,
  type OutgoingMessage,
  type PageOptions,
  type PageOutcome,
  type Run,
  RUN_LEASE_MS,
  type RunName,
  type RunPage,
  sumOf,
  type Tally,
} from "./history.ts";
import { IDEMPOTENCY_TTL_MS } from "./lifetimes.ts";
import type { LastAppends } from "./last_appends.ts";
import { APPEND_PAGE, type PageReply } from "./page_script.ts";
import { LEAVE_RUN, NOTE_RUN, OPEN_RUN } from "./run_scripts.ts";
import type { Timeline } from "./timeline.ts";

/** What the history does for its runs. */
export interface RunHost {
  readonly redis: Redis;
  readonly timeline: Timeline;
  readonly limits: HistoryLimits;
  readonly remembered: LastAppends;
  /** Whether it is a part of a cluster. */
  readonly isPart: boolean;
  /** The arguments that every script that appends begins with. */
  message(message: OutgoingMessage, options: PageOptions): string[];
  /** Runs a script that appends; once more when other data has taken the place of that which was looked at. */
  onData(run: () => Promise<unknown>): Promise<unknown>;
}

/** What became of a page, or of that part of it which one master keeps. */
export interface Portion {
  readonly tally: Tally;
  /** To whom it did not come, and why. */
  readonly left: readonly string[];
  readonly reason?: BrokerUnavailableError;
}

/** By their place in `sums`. */
const SUMS = ["users", "online", "reached", "stored", "unknown", "offline", "failed"] as const;

export class RedisRuns {
  readonly #host: RunHost;
  /** Set where scripts may not use keys of several slots, even if all are kept there. */
  #isAlone = false;

  constructor(host: RunHost) {
    this.#host = host;
    host.redis.prepare(APPEND_PAGE, OPEN_RUN, LEAVE_RUN, NOTE_RUN);
  }

  async open(
    name: RunName,
    message: { readonly id: string; readonly fingerprint: string },
    { isAgain = false }: { isAgain?: boolean } = {},
  ): Promise<OpenedRun> {
    const holder = newEpoch();
    const [outcome, id, cursor, sums, beyond] = await this.#host.redis.evaluate(OPEN_RUN, [runKey(name)], [
      message.fingerprint,
      message.id,
      String(IDEMPOTENCY_TTL_MS),
      holder,
      String(this.#host.isPart ? RUN_LEASE_MS : 0),
      isAgain ? "1" : "0",
    ]) as [OpenedRun["outcome"], ...[id: string, cursor: string, sums: string, beyond: string]];
    if (outcome === "done") return { outcome, id, tally: readSums(sums) };
    if (outcome !== "open") return { outcome };
    const done = new Set(beyond.split("\n").filter((channel) => channel !== ""));
    return { outcome, run: { name, id, cursor, beyond: done, tally: readSums(sums), holder } };
  }

  async leave(run: Run): Promise<void> {
    await this.#host.redis.evaluate(LEAVE_RUN, [runKey(run.name)], [run.holder]);
  }

  /** A page of a run that is kept here, as its users are: all in one step. */
  async append(
    run: Run,
    page: RunPage,
    message: OutgoingMessage,
    options: PageOptions,
  ): Promise<PageOutcome> {
    const reply = await this.#run(page.channels, message, options, { run, page });
    if (reply[0] === "passed") return { outcome: "passed" };
    return { outcome: "noted", tally: readSums(reply[1]), left: [] };
  }

  /** Of a page those users that are kept here, where the run may be kept elsewhere. */
  async appendPortion(
    channels: readonly string[],
    message: OutgoingMessage,
    options: PageOptions,
  ): Promise<Portion> {
    if (this.#isAlone && channels.length > 1) {
      return merge(
        await Promise.all(channels.map((channel) => this.appendPortion([channel], message, options))),
      );
    }
    let reply: PageReply;
    try {
      reply = await this.#run(channels, message, options);
    } catch (reason) {
      if (!(reason instanceof BrokerUnavailableError)) throw reason;
      return { tally: NOTHING_DONE, left: channels, reason };
    }
    const [, sums, , , , , ...refused] = reply;
    const left: string[] = [];
    let said = "";
    for (let i = 0; i < refused.length; i += 2) {
      const text = refused[i + 1]!;
      if (!isRefusedForAll(text)) continue;
      if (/same slot/.test(text)) this.#isAlone = true;
      left.push(channels[Number(refused[i]) - 1]!);
      said = text;
    }
    const tally = readSums(sums);
    const portion = { tally: { ...tally, failed: tally.failed - left.length }, left: [] };
    if (left.length === 0) return portion;
    // Their slot is on its way to another master: with its keys named, Redis says where they are.
    if (channels.length > 1) {
      const alone = left.map((channel) => this.appendPortion([channel], message, options));
      return merge([portion, ...await Promise.all(alone)]);
    }
    return { ...portion, left, reason: new BrokerUnavailableError(publicMessageOfReply(said)) };
  }

  /** Notes of a run that is kept here what was done of a page. */
  async note(run: Run, page: RunPage, { tally, left }: Portion): Promise<PageOutcome> {
    const missing = new Set(left);
    const beyond = left.length === 0 ? [] : page.channels.filter((channel) => !missing.has(channel));
    // None of them was reached: there is nothing to note.
    if (left.length > 0 && beyond.length === 0) return { outcome: "noted", tally: run.tally, left };
    const [outcome, sums] = await this.#host.redis.evaluate(NOTE_RUN, [runKey(run.name)], [
      page.from,
      page.to,
      String(IDEMPOTENCY_TTL_MS),
      page.isLast ? "1" : "0",
      run.name.isKept ? "1" : "0",
      beyond.map((channel) => `${channel}\n`).join(""),
      run.holder,
      String(RUN_LEASE_MS),
      SUMS.map((what) => tally[what]).join(" "),
    ]) as [PageOutcome["outcome"], string];
    return outcome === "passed" ? { outcome } : { outcome, tally: readSums(sums), left };
  }

  async #run(
    channels: readonly string[],
    message: OutgoingMessage,
    options: PageOptions,
    kept?: { readonly run: Run; readonly page: RunPage },
  ): Promise<PageReply> {
    const { timeline, redis, remembered } = this.#host;
    const names = channels.map((channel) => timeline.elsewhere(channel));
    // Of several slots none can be named beforehand.
    const areNamed = !this.#host.isPart || channels.length === 1;
    const keys = areNamed ? channels.flatMap((channel) => [positionKey(channel), historyKey(channel)]) : [];
    const first = kept
      ? [timeline.markKey ?? runKey(kept.run.name), runKey(kept.run.name)]
      : keys.slice(0, 1);
    const known = channels.map((channel) => remembered.of(channel));
    const remembers = known.some((append) => append !== "");
    const run = () =>
      redis.evaluate(APPEND_PAGE, [...first, ...keys], [
        ...this.#host.message(message, options),
        options.keepFor === "online" ? "0" : "1",
        kept ? "1" : "0",
        kept?.page.from ?? "",
        kept?.page.to ?? "",
        String(IDEMPOTENCY_TTL_MS),
        kept?.page.isLast ? "1" : "0",
        kept?.run.name.isKept ? "1" : "0",
        newEpochs(channels.length),
        names.find((name) => name !== "") ?? "",
        names.map((name) => name === "" ? "0" : "1").join(""),
        remembers ? "1" : "0",
        ...channels,
        ...(remembers ? known : []),
      ]);
    const reply = await this.#host.onData(run) as PageReply;
    const [outcome, , last, seq, tag, marks] = reply;
    if (outcome === "noted" && marks !== "") remembered.noteEach(channels, marks);
    if (outcome === "noted" && last !== "" && tag !== undefined && tag !== "") {
      const isFirst = timeline.appended(channels[Number(last) - 1]!, Number(seq), tag);
      if (isFirst) void redis.lookNow();
    }
    return reply;
  }
}

/** Parts of a page together. */
export function merge(portions: readonly Portion[]): Portion {
  const reason = portions.find(({ reason }) => reason?.outcome === "unknown")?.reason ??
    portions.find(({ reason }) => reason)?.reason;
  return {
    tally: portions.map(({ tally }) => tally).reduce(sumOf, NOTHING_DONE),
    left: portions.flatMap(({ left }) => left),
    ...(reason && { reason }),
  };
}

function runKey({ channel, key }: RunName): string {
  return idempotencyKey(channel, key);
}

function readSums(text: string): Tally {
  const sums = text.split(" ").map(Number);
  return Object.fromEntries(SUMS.map((what, i) => [what, sums[i] ?? 0])) as unknown as Tally;
}
