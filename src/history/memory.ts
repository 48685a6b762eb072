/** The history inside one process, for a service of a single node. It forgets everything when the process ends. */
import type { Broker } from "../broker/broker.ts";
import { withSeq } from "../protocol/envelope.ts";
import { newEpoch, tagOf } from "./epochs.ts";
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
  RunName,
  RunPage,
  SinceOptions,
  Stored,
  Tally,
} from "./history.ts";
import { CLAIM_TTL_MS, COUNTER_TTL_MS, IDEMPOTENCY_TTL_MS } from "./lifetimes.ts";
import { MemoryRuns } from "./memory_runs.ts";

interface UserHistory {
  readonly epoch: string;
  last: number;
  lastTag: string;
  entries: (Stored & { readonly tag: string; readonly endsMs: number })[];
  usedMs: number;
}

type Result = Appended & { outcome: "appended" | "offline" };

const SWEEP_MS = 60_000;

export class MemoryHistory implements History {
  readonly limits: HistoryLimits;
  readonly #broker: Broker;
  readonly #now: () => number;
  readonly #histories = new Map<string, UserHistory>();
  /** Results of sends, by channel and idempotency key. */
  readonly #remembered = new Map<string, { fingerprint: string; result: Promise<Result>; endsMs: number }>();
  readonly #runs: MemoryRuns;
  /** Calls that may have sent something, by prefix and idempotency key. */
  readonly #claims = new Map<string, { fingerprint: string; calls: number; endsMs: number }>();
  #sweptMs: number;

  /** @param options.now The clock, in milliseconds; for tests. */
  constructor(broker: Broker, options: { limits: HistoryLimits; now?: () => number }) {
    this.#broker = broker;
    this.limits = options.limits;
    this.#now = options.now ?? Date.now;
    this.#sweptMs = this.#now();
    this.#runs = new MemoryRuns(this.#now);
  }

  async append(channel: string, message: OutgoingMessage, options: AppendOptions = {}): Promise<Appended> {
    const { idempotency } = options;
    this.#sweep();
    if (!idempotency) return await this.#append(channel, message, options);
    const { fingerprint } = idempotency;
    const key = JSON.stringify([channel, idempotency.key]);
    const before = this.#remembered.get(key);
    if (before && before.endsMs > this.#now()) {
      if (before.fingerprint !== fingerprint) return { outcome: "conflict" };
      const result = await before.result;
      return result.outcome === "offline" ? result : { ...result, outcome: "repeated" };
    }
    const result = this.#append(channel, message, options);
    // Before anything is awaited, or a second send with this key could slip in.
    this.#remembered.set(key, { fingerprint, result, endsMs: this.#now() + IDEMPOTENCY_TTL_MS });
    // A send that did nothing is not remembered: the retry is to send.
    const forget = () => this.#remembered.delete(key);
    result.then(({ outcome }) => outcome === "offline" && forget(), forget);
    return await result;
  }

  appendToAll(
    channels: readonly string[],
    message: OutgoingMessage,
    options?: AppendOptions,
  ): Promise<PromiseSettledResult<Appended>[]> {
    return Promise.allSettled(channels.map((channel) => this.append(channel, message, options)));
  }

  // deno-lint-ignore require-await -- async so that a fault is a rejection, as the contract says
  async openRun(
    name: RunName,
    message: { id: string; fingerprint: string },
    options: { isAgain?: boolean } = {},
  ): Promise<OpenedRun> {
    this.#sweep();
    return this.#runs.open(name, message, options.isAgain ?? false);
  }

  appendPage(
    run: Run,
    page: RunPage,
    message: OutgoingMessage,
    options: PageOptions = {},
  ): Promise<PageOutcome> {
    return this.#runs.append(run, page, async (channel): Promise<Partial<Tally>> => {
      const isHeard = (await this.#broker.counts([channel]))[0]! > 0;
      if (!isHeard && options.expectOnline) return { offline: 1 };
      if (!isHeard && !this.#histories.has(channel)) return { unknown: 1 };
      const isKept = isHeard || options.keepFor !== "online";
      const { reached } = await this.#append(channel, message, options, isKept) as { reached: number };
      const stored = Number(reached === 0 && isKept && this.limits.count > 0);
      return { users: 1, online: Number(reached > 0), reached, stored };
    });
  }

  // deno-lint-ignore require-await -- as above
  async leaveRun(run: Run): Promise<void> {
    this.#runs.leave(run);
  }

  claim(prefix: string, { key, fingerprint }: Idempotency): Promise<boolean> {
    this.#sweep();
    const name = JSON.stringify([prefix, key]);
    const claim = this.#claims.get(name);
    const before = claim && claim.endsMs > this.#now() ? claim : undefined;
    if (before && before.fingerprint !== fingerprint) return Promise.resolve(false);
    const calls = (before?.calls ?? 0) + 1;
    this.#claims.set(name, { fingerprint, calls, endsMs: this.#now() + CLAIM_TTL_MS });
    return Promise.resolve(true);
  }

  release(prefix: string, { key, fingerprint }: Idempotency): Promise<void> {
    const name = JSON.stringify([prefix, key]);
    const claim = this.#claims.get(name);
    if (claim?.fingerprint === fingerprint && --claim.calls === 0) this.#claims.delete(name);
    return Promise.resolve();
  }

  // deno-lint-ignore require-await -- async so that a fault is a rejection, as the contract says
  async since(
    channel: string,
    after: number | undefined,
    limit: number,
    options: SinceOptions = {},
  ): Promise<Page> {
    if (options.peek && !this.#histories.has(channel)) {
      return { epoch: "", previousEpochs: [], last: 0, items: [], upTo: 0, lastTag: "", afterTag: "" };
    }
    const history = this.#historyOf(channel);
    const { epoch, last, lastTag } = history;
    const afterTag = after === last ? lastTag : history.entries.find(({ seq }) => seq === after)?.tag ?? "";
    const place = { epoch, previousEpochs: [], last, lastTag, afterTag };
    if (after === undefined) return { ...place, items: [], upTo: last };
    const nowMs = this.#now();
    const looked = history.entries.filter(({ seq }) => seq > after).slice(0, limit);
    return {
      ...place,
      items: looked.filter(({ endsMs }) => endsMs > nowMs).map(({ seq, envelope }) => ({ seq, envelope })),
      upTo: looked.length < limit ? history.last : looked.at(-1)!.seq,
    };
  }

  /** @param isKept Whether it is kept for who is away; if not, a hole stays. */
  async #append(
    channel: string,
    message: OutgoingMessage,
    options: AppendOptions,
    isKept = true,
  ): Promise<Result> {
    // A memory broker answers within the same turn as it delivers, so the check can't go stale before the append.
    if (options.expectOnline && (await this.#broker.counts([channel]))[0] === 0) {
      return { outcome: "offline" };
    }
    if (this.limits.count === 0) {
      const reached = await this.#broker.publish(channel, message.head + message.tail);
      return { outcome: "appended", id: message.id, position: undefined, reached };
    }
    const history = this.#historyOf(channel);
    const seq = ++history.last;
    const tag = history.lastTag = tagOf(history.epoch, newEpoch());
    const envelope = withSeq(message, seq, tag);
    const endsMs = this.#now() + (options.ttlMs ?? this.limits.ttlMs);
    if (isKept) history.entries.push({ seq, envelope, tag, endsMs });
    while (history.entries.length > 0 && history.entries[0]!.seq <= seq - this.limits.count) {
      history.entries.shift();
    }
    const reached = await this.#broker.publish(channel, envelope);
    return { outcome: "appended", id: message.id, position: { epoch: history.epoch, seq }, reached };
  }

  #historyOf(channel: string): UserHistory {
    let history = this.#histories.get(channel);
    if (!history) {
      history = { epoch: newEpoch(), last: 0, lastTag: "", entries: [], usedMs: 0 };
      this.#histories.set(channel, history);
    }
    history.usedMs = this.#now();
    return history;
  }

  /** Deletes what has outlived its time, once a minute at most, so that many users seen once do not add up. */
  #sweep(): void {
    const nowMs = this.#now();
    // The difference either way: a clock that was set back must not stop the sweeps until it has caught up.
    if (Math.abs(nowMs - this.#sweptMs) < SWEEP_MS) return;
    this.#sweptMs = nowMs;
    for (const [channel, history] of this.#histories) {
      history.entries = history.entries.filter(({ endsMs }) => endsMs > nowMs);
      if (history.entries.length === 0 && nowMs - history.usedMs > COUNTER_TTL_MS) {
        this.#histories.delete(channel);
      }
    }
    this.#runs.sweep(nowMs);
    for (const [key, { endsMs }] of this.#remembered) if (endsMs <= nowMs) this.#remembered.delete(key);
    for (const [name, { endsMs }] of this.#claims) if (endsMs <= nowMs) this.#claims.delete(name);
  }
}
