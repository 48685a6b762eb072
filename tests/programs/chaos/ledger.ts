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
 * where on. So it is, in any epoch, with a user whose keys alone were put back. That is counted, and is not called doubled. Where
 * else the epoch changed, the product knows better.
 *
 * Undisturbed means: from `CALM_BEFORE_MS` before the first try until `CALM_AFTER_MS` after the answer the client
 * was open without a break, and no fault was under way that cuts subscriptions. Such a fault is under way until every
 * client has got a message that was sent after it. Only then may the answer be compared: in between nobody can say what
 * the true number was.
 */
import type { GapFrame } from "../../../src/client/mod.ts";
import { type Accepted, Book, type Handed } from "./book.ts";
import { Spans } from "./spans.ts";

export type { Accepted } from "./book.ts";

/** A subscription that was replaced may be there beside the new one for so long. */
export const CALM_BEFORE_MS = 500;
/** A client may learn so much later than Redis that its connection is gone. */
export const CALM_AFTER_MS = 500;

/** A way in which the books don't balance. */
export type Kind = "lost" | "doubled" | "disordered" | "misplaced" | "miscounted" | "other";

export interface Violation {
  readonly kind: Kind;
  readonly text: string;
}

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
  readonly violations: readonly Violation[];
}

export class Ledger {
  readonly #nowMs: () => number;
  readonly #accepted = new Map<number, Accepted>();
  readonly #books = new Map<string, Book>();
  readonly #breaks = new Map<string, Spans>();
  readonly #disturbances = new Spans();
  readonly #losses = new Spans();
  readonly #evictions = new Spans();
  readonly #observed: Violation[] = [];
  #found: Violation[] = [];

  /** @param nowMs The clock. */
  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
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

  accept(accepted: Accepted): void {
    this.#accepted.set(accepted.n, accepted);
  }

  /** From now on this user has a client, which is not open yet. */
  expect(user: string): void {
    this.#books.set(user, new Book());
    this.#breaks.set(user, new Spans());
    this.broke(user);
  }

  /** The client is not open any more. */
  broke(user: string): void {
    this.#breaks.get(user)!.begin(this.#nowMs());
  }

  /** The client is open, at this position. */
  opened(user: string, position: string | undefined): void {
    this.#breaks.get(user)!.end(this.#nowMs());
    this.#books.get(user)!.opened(position, this.#nowMs());
  }

  received(user: string, seq: number | undefined, n: number): void {
    this.#books.get(user)!.received(seq, n);
  }

  missed(user: string, gap: GapFrame): void {
    this.#books.get(user)!.missed(gap, this.#nowMs());
  }

  /** Something cuts subscriptions from now on. */
  disturb(): void {
    this.#disturbances.begin(this.#nowMs());
  }

  /** All is well again. */
  calm(): void {
    this.#disturbances.end(this.#nowMs());
  }

  /**
   * Redis has lost its memory, or what it took last, and with it idempotency keys.
   * @param sinceMs When that can have been at the earliest. @default now
   */
  redisLost(sinceMs = this.#nowMs()): void {
    this.#losses.add(sinceMs, this.#nowMs());
  }

  /** Since then Redis may have thrown away any key at any time. */
  redisEvicted(sinceMs: number): void {
    this.#evictions.add(sinceMs, this.#nowMs());
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

  // ------------------------------------------------------------------------------------------------------
  // What comes of it

  close(): Verdict {
    const sum = {
      accepted: 0,
      received: 0,
      told: 0,
      toldUnderWay: 0,
      compared: 0,
      excused: 0,
      countedButTold: 0,
    };
    const epochsBegan = this.#epochsBegan();
    this.#found = [];
    let sentAgainAfterLoss = 0;
    let againAfterSetBack = 0;
    for (const accepted of this.#accepted.values()) {
      const book = this.#books.get(accepted.user);
      const isCompared = this.#compare(accepted);
      sum[isCompared ? "compared" : "excused"]++;
      if (!book) continue;
      sum.accepted++;
      const handed = book.handed.get(accepted.n);
      if (handed) {
        sum.received++;
        const isExcused = this.#isExcused(accepted, handed);
        if (handed.length > 1 && isExcused) sentAgainAfterLoss++;
        else if (handed.length > 1 && isAgainAfterSetBack(handed)) againAfterSetBack++;
        else if (handed.length > 1) this.#violate("doubled", `${describe(accepted)} came at ${at(handed)}`);
        if (!isExcused && !handed.some((place) => isPlaceOf(accepted, place, epochsBegan))) {
          this.#violate("misplaced", `${describe(accepted)} came at ${at(handed)}`);
        }
      } else if (book.isTold(accepted, accepted.sentMs, (n) => this.#accepted.get(n))) {
        // It was accepted at some time between its last try and the answer: the benefit of the doubt is counted.
        sum.told++;
        if (!book.isTold(accepted, accepted.answeredMs, (n) => this.#accepted.get(n))) sum.toldUnderWay++;
        if (isCompared && accepted.sockets === 1) sum.countedButTold++;
      } else {
        const told = book.toldAround(accepted.answeredMs);
        this.#violate("lost", `${describe(accepted)} was lost in silence; its client was told: ${told}`);
        if (isCompared && accepted.sockets === 1) {
          this.#violate("miscounted", `${describe(accepted)}: the client that was counted never got it`);
        }
      }
    }
    for (const [user, book] of this.#books) {
      for (const fault of book.faults) this.#violate("disordered", `${user} ${fault}`);
      for (const n of book.handed.keys()) {
        if (!this.#accepted.has(n)) this.#violate("other", `${user} got ${n}, which was never accepted`);
      }
    }
    const places = new Set(
      [...this.#accepted.values()].map(({ user, epoch, seq }) => `${user} ${epoch}.${seq}`),
    );
    return {
      ...sum,
      sentAgainAfterLoss,
      againAfterSetBack,
      placesGivenTwice: this.#accepted.size - places.size,
      violations: [...this.#observed, ...this.#found],
    };
  }

  /** Compares an answer with what the user's client was; false when that can't be said. */
  #compare(accepted: Accepted): boolean {
    const { user, sockets, triedMs, answeredMs } = accepted;
    const breaks = this.#breaks.get(user);
    if (!breaks) {
      if (sockets !== 0) this.#violate("miscounted", `${describe(accepted)}: nobody has this name`);
      return true;
    }
    const during = [triedMs - CALM_BEFORE_MS, answeredMs + CALM_AFTER_MS] as const;
    if (breaks.touching(...during) > 0 || this.#disturbances.touching(...during) > 0) return false;
    if (sockets !== 1) {
      this.#violate("miscounted", `${describe(accepted)}: one client was there all the time`);
    }
    return true;
  }

  /**
   * A send comes once more for each time that Redis forgot its key between two tries, and for no other reason. A key that was
   * lost was lost together with the message: so the client was told of another epoch, or led back, before it came again. A key
   * that was evicted leaves the message where it is.
   */
  #isExcused({ triedMs, answeredMs, tries }: Accepted, copies: readonly Handed[]): boolean {
    if (tries === 1 || copies.length > tries) return false;
    if (this.#evictions.touching(triedMs, answeredMs) > 0) return true;
    const losses = this.#losses.touching(triedMs, answeredMs);
    if (losses === 0 || copies.length > 1 + losses) return false;
    return copies.slice(1).every(({ epoch, setBacks }, i) =>
      epoch !== copies[i]!.epoch || setBacks > copies[i]!.setBacks
    );
  }

  /** When each user's epochs can have begun at the earliest, as far as messages tell. */
  #epochsBegan(): ReadonlyMap<string, number> {
    const began = new Map<string, number>();
    for (const { user, epoch, sentMs } of this.#accepted.values()) {
      const key = `${user} ${epoch}`;
      began.set(key, Math.min(sentMs, began.get(key) ?? Infinity));
    }
    return began;
  }

  #violate(kind: Kind, text: string): void {
    this.#found.push({ kind, text });
  }
}

/**
 * Whether a message came at its own place: under its number, and in its epoch or one that went on from that. An
 * epoch that began when the client already stood in another can't be what the other went on from.
 */
function isPlaceOf(accepted: Accepted, handed: Handed, epochsBegan: ReadonlyMap<string, number>): boolean {
  if (handed.seq !== accepted.seq) return false;
  if (handed.epoch === accepted.epoch) return true;
  return epochsBegan.get(`${accepted.user} ${accepted.epoch}`)! <= handed.epochMs;
}

/**
 * Whether each copy came under the same number, and the client had been led back before each further one. The epoch may have
 * gone on from the one in which it came first.
 */
function isAgainAfterSetBack(handed: readonly Handed[]): boolean {
  return handed.slice(1).every(({ seq, setBacks }, i) => {
    const before = handed[i]!;
    return seq === before.seq && setBacks > before.setBacks;
  });
}

function at(places: readonly Handed[]): string {
  return places.map(({ epoch, seq }) => `${epoch}.${seq}`).join(" and ");
}

function describe({ user, n, epoch, seq, sockets, triedMs, answeredMs, tries }: Accepted): string {
  const when = `tried ${tries} times from ${Math.round(triedMs)} ms, answered at ${
    Math.round(answeredMs)
  } ms`;
  return `${n} to ${user} (accepted as ${epoch}.${seq}, sockets ${sockets}, ${when})`;
}
