/**
 * The books of the chaos: what was accepted, what each client was handed, what it was told it will not get, and what the
 * senders were told. At the end they must balance:
 *
 * - accepted = received ∪ told to be missing, nothing twice, everything in order and at the place that its sender was
 *   told. The truth is the number in the payload, whatever the product calls the place.
 * - `sockets` of an answer is the number of clients that were there: one for a user whose client was undisturbed, and none
 *   for a user without a client. Who was counted gets the message, live or replayed, or is told of a gap.
 *
 * A client that is told of a gap of kind `epoch` which leads back within its epoch gets again what it had: numbers
 * were given out again, no name of an epoch says so, and only the message at its own place proved it, which does not tell from
 * where on. So it is, in any epoch, with a user whose keys alone were put back, and in one that goes on from no other where Redis
 * may have lost what nobody was answered. That is counted, and is not called doubled. Elsewhere the product knows better.
 *
 * Undisturbed means: from `CALM_BEFORE_MS` before the first try until `CALM_AFTER_MS` after the answer the client
 * was open without a break, and no fault was under way that cuts subscriptions. Such a fault is under way until every
 * client has got a message that was sent after it. Only then may the answer be compared: in between nobody can say what
 * the true number was.
 */
import type { BroadcastGapFrame, GapFrame } from "../../../src/client/mod.ts";
import { type Accepted, Book, type Tried } from "./book.ts";
import { type Broadcast, type BroadcastVerdict, judgeBroadcasts } from "./broadcasts.ts";
import { Circumstances } from "./circumstances.ts";
import {
  at,
  describe,
  epochsOf,
  fateOf,
  type FateOptions,
  isPlaceOf,
  type Kind,
  type Violation,
} from "./fate.ts";
import { type GroupVerdict, judgeGroups, type ToGroup } from "./groups.ts";
import { Spans } from "./spans.ts";

export type { Accepted } from "./book.ts";
export { CALM_AFTER_MS, CALM_BEFORE_MS } from "./circumstances.ts";
export type { Kind, Violation } from "./fate.ts";

export interface Verdict {
  /** Messages to users with a client. */
  readonly accepted: number;
  readonly received: number;
  /** Told to be missing, and not received. */
  readonly told: number;
  /** Of these, those whose answer came after the gap: they may have been accepted after it too. */
  readonly toldUnderWay: number;
  /** Handed over twice because the sender's retry fell across a loss of Redis' memory. */
  readonly sentAgainAfterLoss: number;
  /** Handed over again because a gap had led the client back from nobody knows where. */
  readonly againAfterSetBack: number;
  /** Places that were given out for two messages of a user. */
  readonly placesGivenTwice: number;
  /** Answers whose `sockets` was compared with what the clients were, and those for which that can't be said. */
  readonly compared: number;
  readonly excused: number;
  /** Answers that counted a client which was then told that it will not get the message. */
  readonly countedButTold: number;
  readonly groups: GroupVerdict;
  readonly broadcasts: BroadcastVerdict;
  readonly violations: readonly Violation[];
}

type Sum = Exclude<keyof Verdict, "placesGivenTwice" | "groups" | "broadcasts" | "violations">;

interface JudgeOptions extends FateOptions {
  readonly sum: Record<Sum, number>;
  readonly epochsBegan: ReadonlyMap<string, number>;
}

export class Ledger {
  readonly #circumstances: Circumstances;
  readonly #accepted = new Map<number, Accepted>();
  readonly #toGroups = new Map<number, ToGroup>();
  readonly #broadcasts = new Map<number, Broadcast>();
  readonly #books = new Map<string, Book>();
  /** What each client saw of broadcasts, which are numbered apart. */
  readonly #broadcastBooks = new Map<string, Book>();
  #numbers = 0;
  readonly #observed: Violation[] = [];
  #found: Violation[] = [];

  /** @param nowMs The clock. */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#circumstances = new Circumstances(nowMs);
  }

  /** Sends that were accepted so far, those to users without a client too. */
  get size(): number {
    return this.#accepted.size;
  }

  /** Users with a client. */
  get users(): string[] {
    return [...this.#books.keys()];
  }

  /** Sends that were tried and answered within this time. */
  acceptedWithin(fromMs: number, toMs: number): number {
    return [...this.#accepted.values()].filter(({ sentMs, answeredMs }) =>
      sentMs >= fromMs && answeredMs <= toMs
    )
      .length;
  }

  // ------------------------------------------------------------------------------------------------------
  // What happens

  /** A number for the next send. */
  number(): number {
    return ++this.#numbers;
  }

  accept(accepted: Accepted): void {
    this.#accepted.set(accepted.n, accepted);
  }

  acceptToGroup(send: ToGroup): void {
    this.#toGroups.set(send.n, send);
  }

  acceptBroadcast(broadcast: Broadcast): void {
    this.#broadcasts.set(broadcast.n, broadcast);
  }

  /** From now on this user has a client, which is not open yet. */
  expect(user: string): void {
    this.#books.set(user, new Book());
    this.#broadcastBooks.set(user, new Book());
    this.#circumstances.breaks.set(user, new Spans());
    this.broke(user);
  }

  /** The client is not open any more. Of users whom nobody expects nothing is noted. */
  broke(user: string): void {
    this.#circumstances.breaks.get(user)?.begin(this.#nowMs());
  }

  /** The client is open, at this position, and at that one among broadcasts. */
  opened(user: string, position: string | undefined, all?: string): void {
    this.#circumstances.breaks.get(user)!.end(this.#nowMs());
    this.#books.get(user)!.opened(position, this.#nowMs());
    if (all !== undefined) this.#broadcastBooks.get(user)!.opened(all, this.#nowMs());
  }

  received(user: string, seq: number | undefined, n: number): void {
    this.#books.get(user)!.received(seq, n, this.#nowMs());
  }

  missed(user: string, gap: GapFrame): void {
    this.#books.get(user)!.missed(gap, this.#nowMs());
  }

  receivedBroadcast(user: string, seq: number | undefined, n: number): void {
    this.#broadcastBooks.get(user)!.received(seq, n, this.#nowMs());
  }

  missedBroadcasts(user: string, gap: BroadcastGapFrame): void {
    this.#broadcastBooks.get(user)!.missed({ ...gap, t: "gap" }, this.#nowMs());
  }

  /** Something cuts subscriptions from now on. */
  disturb(): void {
    this.#circumstances.disturbances.begin(this.#nowMs());
  }

  /** All is well again. */
  calm(): void {
    this.#circumstances.disturbances.end(this.#nowMs());
  }

  /**
   * Redis has lost its memory, or what it took last, and with it idempotency keys.
   * @param sinceMs When that can have been at the earliest. @default now
   */
  redisLost(sinceMs = this.#nowMs()): void {
    this.#circumstances.losses.add(sinceMs, this.#nowMs());
  }

  /** Since then Redis may have thrown away any key at any time. */
  redisEvicted(sinceMs: number): void {
    this.#circumstances.evictions.add(sinceMs, this.#nowMs());
  }

  /** From now on Redis may lose what it has published and not answered yet: of that nobody knows but who has it. */
  mayHaveUnanswered(): void {
    for (const book of this.#books.values()) book.mayHaveUnanswered = true;
  }

  /** The keys of this user alone were put back. */
  putBack(user: string): void {
    this.#books.get(user)!.isPutBack = true;
  }

  /** Something that only its observer can judge. */
  violate(text: string): void {
    this.#observed.push({ kind: "other", text });
  }

  hasReceived(user: string, n: number): boolean {
    return this.#books.get(user)!.handed.has(n);
  }

  hasReceivedBroadcast(user: string, n: number): boolean {
    return this.#broadcastBooks.get(user)!.handed.has(n);
  }

  // ------------------------------------------------------------------------------------------------------
  // What comes of it

  close(): Verdict {
    const sum = {
      accepted: 0,
      received: 0,
      told: 0,
      toldUnderWay: 0,
      sentAgainAfterLoss: 0,
      againAfterSetBack: 0,
      compared: 0,
      excused: 0,
      countedButTold: 0,
    };
    const all = [...this.#accepted.values()];
    const options = {
      ...{ sum, circumstances: this.#circumstances, epochsBegan: epochsOf(all) },
      sendOf: (n: number) => this.#sendOf(n),
    };
    this.#found = [];
    for (const accepted of all) this.#judge(accepted, options);
    for (const [user, book] of this.#books) {
      for (const fault of book.faults) this.#violate("disordered", `${user} ${fault}`);
      for (const n of book.handed.keys()) {
        if (!this.#sendOf(n)) this.#violate("other", `${user} got ${n}, which was never accepted`);
      }
    }
    const groups = judgeGroups([...this.#toGroups.values()], { ...options, books: this.#books, direct: all });
    const broadcasts = judgeBroadcasts(this.#broadcasts, this.#broadcastBooks, this.#circumstances);
    const places = new Set(all.map(({ user, epoch, seq }) => `${user} ${epoch}.${seq}`));
    return {
      ...sum,
      placesGivenTwice: all.length - places.size,
      groups,
      broadcasts,
      violations: [...this.#observed, ...this.#found, ...groups.violations, ...broadcasts.violations],
    };
  }

  /** What became of a send to a user. */
  #judge(accepted: Accepted, options: JudgeOptions): void {
    const { sum, circumstances, epochsBegan } = options;
    const book = this.#books.get(accepted.user);
    const isCompared = this.#compare(accepted);
    sum[isCompared ? "compared" : "excused"]++;
    if (!book) return;
    sum.accepted++;
    const fate = fateOf(accepted, book, options);
    const handed = book.handed.get(accepted.n);
    if (handed) {
      sum.received++;
      if (fate === "again after loss") sum.sentAgainAfterLoss++;
      if (fate === "again after set back") sum.againAfterSetBack++;
      if (fate === "doubled") this.#violate("doubled", `${describe(accepted)} came at ${at(handed)}`);
      if (circumstances.excuses(accepted, handed)) return;
      if (!handed.some((place) => isPlaceOf(accepted, place, epochsBegan))) {
        this.#violate("misplaced", `${describe(accepted)} came at ${at(handed)}`);
      }
    } else if (fate !== "lost") {
      sum.told++;
      if (fate === "told under way") sum.toldUnderWay++;
      if (isCompared && accepted.sockets === 1) sum.countedButTold++;
    } else {
      const told = book.toldAround(accepted);
      this.#violate("lost", `${describe(accepted)} was lost in silence; its client was told: ${told}`);
      if (isCompared && accepted.sockets === 1) {
        this.#violate("miscounted", `${describe(accepted)}: the client that was counted never got it`);
      }
    }
  }

  /** A send by its number; to a group it may have come with the first try already. */
  #sendOf(n: number): Tried | undefined {
    const toGroup = this.#toGroups.get(n);
    return toGroup ? { ...toGroup, sentMs: toGroup.triedMs } : this.#accepted.get(n);
  }

  /** Compares an answer with what the user's client was; false when that can't be said. */
  #compare(accepted: Accepted): boolean {
    const { user, sockets } = accepted;
    if (!this.#books.has(user)) {
      if (sockets !== 0) this.#violate("miscounted", `${describe(accepted)}: nobody has this name`);
      return true;
    }
    const circumstances = this.#circumstances;
    if (!circumstances.isThere(user, accepted) || !circumstances.isCalm(accepted)) return false;
    if (sockets !== 1) {
      this.#violate("miscounted", `${describe(accepted)}: one client was there all the time`);
    }
    return true;
  }

  get #nowMs(): () => number {
    return this.#circumstances.nowMs;
  }

  #violate(kind: Kind, text: string): void {
    this.#found.push({ kind, text });
  }
}
