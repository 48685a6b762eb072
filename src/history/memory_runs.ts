/** Runs in memory: one message to many users, page after page, see `Run`. */
import {
  NOTHING_DONE,
  type OpenedRun,
  type PageOutcome,
  type Run,
  type RunName,
  type RunPage,
  sumOf,
  type Tally,
} from "./history.ts";
import { IDEMPOTENCY_TTL_MS } from "./lifetimes.ts";

interface KeptRun {
  readonly fingerprint: string;
  readonly id: string;
  cursor: string;
  tally: Tally;
  isDone: boolean;
  holder: string;
  endsMs: number;
}

export class MemoryRuns {
  readonly #runs = new Map<string, KeptRun>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  open(name: RunName, message: { id: string; fingerprint: string }, isAgain: boolean): OpenedRun {
    const key = keyOf(name);
    let kept = this.#runs.get(key);
    if (kept && kept.endsMs <= this.#now()) kept = undefined;
    if (kept && kept.fingerprint !== message.fingerprint) return { outcome: "conflict" };
    if (kept?.isDone) return { outcome: "done", id: kept.id, tally: kept.tally };
    if (!kept && isAgain) return { outcome: "lost" };
    kept ??= { ...message, cursor: "", tally: NOTHING_DONE, isDone: false, holder: "", endsMs: 0 };
    kept.endsMs = this.#now() + IDEMPOTENCY_TTL_MS;
    kept.holder = crypto.randomUUID();
    this.#runs.set(key, kept);
    const { id, cursor, tally, holder } = kept;
    return { outcome: "open", run: { name, id, cursor, beyond: new Set(), tally, holder } };
  }

  /** @param append Appends for one user, and says what became of it. */
  async append(
    run: Run,
    page: RunPage,
    append: (channel: string) => Promise<Partial<Tally>>,
  ): Promise<PageOutcome> {
    const kept = this.#runs.get(keyOf(run.name));
    if (kept?.cursor !== page.from || kept.isDone) return { outcome: "passed" };
    // Before anything is awaited: nobody else does this page.
    kept.cursor = page.to;
    const sums = await Promise.all(page.channels.map(append));
    for (const one of sums) kept.tally = sumOf(kept.tally, { ...NOTHING_DONE, ...one });
    kept.endsMs = this.#now() + IDEMPOTENCY_TTL_MS;
    if (page.isLast) {
      kept.isDone = true;
      if (!run.name.isKept) this.#runs.delete(keyOf(run.name));
    }
    return { outcome: "noted", tally: kept.tally, left: [] };
  }

  leave(run: Run): void {
    const kept = this.#runs.get(keyOf(run.name));
    if (kept?.holder === run.holder && kept.cursor === "" && !kept.isDone) this.#runs.delete(keyOf(run.name));
  }

  /** Deletes what has outlived its time. */
  sweep(nowMs: number): void {
    for (const [key, { endsMs }] of this.#runs) if (endsMs <= nowMs) this.#runs.delete(key);
  }
}

function keyOf({ channel, key }: RunName): string {
  return JSON.stringify([channel, key]);
}
