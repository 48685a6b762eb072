/**
 * The books of the chaos: what was accepted, what each client was handed, what it was told it will not get. At the end
 * they must balance: accepted = received ∪ announced as missing, nothing twice, everything in order.
 */
import type { GapFrame } from "../../src/client/mod.ts";

/** A send that was answered 2xx. */
export interface Accepted {
  readonly user: string;
  /** Number of the send, in the payload too. */
  readonly n: number;
  readonly epoch: string;
  readonly seq: number;
  /** When it was tried first, and when it was answered, in `performance.now()` milliseconds. */
  readonly triedMs: number;
  readonly answeredMs: number;
  /** How often it was tried. */
  readonly tries: number;
}

interface Gap {
  readonly epoch: string;
  readonly from: number;
  readonly to: number;
  readonly isEpochGap: boolean;
}

/** What one client saw. */
class Book {
  epoch: string | undefined;
  seq = 0;
  readonly epochs = new Set<string>();
  readonly received = new Map<string, number>();
  /** Where each send was handed over: once, if all is well. */
  readonly placesOfSend = new Map<number, string[]>();
  readonly gaps: Gap[] = [];
}

export interface Verdict {
  readonly accepted: number;
  readonly received: number;
  readonly missingButAnnounced: number;
  readonly gaps: number;
  readonly epochGaps: number;
  /** Handed over twice because the sender's retry fell across a loss of Redis' memory. */
  readonly sentAgainAfterLoss: number;
  readonly violations: readonly string[];
}

export class Ledger {
  readonly #accepted: Accepted[] = [];
  readonly #books = new Map<string, Book>();
  readonly #violations: string[] = [];
  readonly #lossesMs: number[] = [];

  accept(accepted: Accepted): void {
    this.#accepted.push(accepted);
  }

  /** Redis has lost its memory, and with it the idempotency keys. */
  redisLost(): void {
    this.#lossesMs.push(performance.now());
  }

  /** A client opened a connection at a position. Only the first one tells something new. */
  opened(user: string, position: string): void {
    const book = this.#book(user);
    if (book.epoch !== undefined) return;
    this.#moveTo(book, position);
  }

  received(user: string, seq: number, n: number): void {
    const book = this.#book(user);
    if (seq <= book.seq) this.#violate(`${user} got ${seq} after ${book.seq}`);
    if (seq > book.seq + 1) this.#violate(`${user} got ${seq} after ${book.seq} and no gap in between`);
    book.seq = seq;
    const place = `${book.epoch}.${seq}`;
    book.received.set(place, n);
    const places = book.placesOfSend.get(n);
    if (places) places.push(place);
    else book.placesOfSend.set(n, [place]);
  }

  missed(user: string, gap: GapFrame): void {
    const book = this.#book(user);
    if (gap.from !== book.seq + 1) {
      this.#violate(`${user} stands at ${book.seq}, and the gap begins at ${gap.from}`);
    }
    book.gaps.push({
      epoch: book.epoch ?? "",
      from: gap.from,
      to: gap.to ?? Infinity,
      isEpochGap: gap.why === "epoch",
    });
    if (gap.why === "trimmed" && gap.count !== gap.to - gap.from + 1) {
      this.#violate(`${user}: a gap miscounts`);
    }
    this.#moveTo(book, gap.pos);
  }

  hasReceived(user: string, n: number): boolean {
    return this.#book(user).placesOfSend.has(n);
  }

  close(): Verdict {
    let received = 0, announced = 0, again = 0;
    for (const accepted of this.#accepted) {
      const book = this.#book(accepted.user);
      const got = book.received.get(`${accepted.epoch}.${accepted.seq}`);
      if (got === accepted.n) received++;
      else if (got !== undefined) {
        this.#violate(`${accepted.user} got ${got} where ${accepted.n} was accepted`);
      } else if (isAnnounced(book, accepted)) announced++;
      else {this.#violate(
          `${accepted.user} lost ${accepted.n} (${accepted.epoch}.${accepted.seq}) in silence`,
        );}
    }
    const sends = new Map(this.#accepted.map((accepted) => [accepted.n, accepted]));
    let gaps = 0, epochGaps = 0;
    for (const [user, book] of this.#books) {
      for (const [n, places] of book.placesOfSend) {
        if (places.length === 1) continue;
        const send = sends.get(n);
        if (this.#isExcused(send, places.length)) again++;
        else this.#violate(`${user} got send ${n} at ${places.join(" and ")}; ${describe(send)}`);
      }
      gaps += book.gaps.filter(({ isEpochGap }) => !isEpochGap).length;
      epochGaps += book.gaps.filter(({ isEpochGap }) => isEpochGap).length;
    }
    return {
      accepted: this.#accepted.length,
      received,
      missingButAnnounced: announced,
      gaps,
      epochGaps,
      sentAgainAfterLoss: again,
      violations: this.#violations,
    };
  }

  /** A send comes once more for each time that Redis forgot its key between two tries, and for no other reason. */
  #isExcused(accepted: Accepted | undefined, copies: number): boolean {
    if (accepted === undefined) return false;
    const { triedMs, answeredMs, tries } = accepted;
    const losses = this.#lossesMs.filter((lossMs) => lossMs >= triedMs && lossMs <= answeredMs);
    return copies <= tries && copies <= 1 + losses.length;
  }

  #moveTo(book: Book, position: string): void {
    const dot = position.lastIndexOf(".");
    book.epoch = position.slice(0, dot);
    book.seq = Number(position.slice(dot + 1));
    book.epochs.add(book.epoch);
  }

  #book(user: string): Book {
    let book = this.#books.get(user);
    if (!book) this.#books.set(user, book = new Book());
    return book;
  }

  #violate(text: string): void {
    this.#violations.push(text);
  }
}

function describe(accepted: Accepted | undefined): string {
  if (!accepted) return "never accepted";
  const { epoch, seq, triedMs, answeredMs, tries } = accepted;
  return `accepted as ${epoch}.${seq}, tried ${tries} times from ${Math.round(triedMs)} ms, answered at ${
    Math.round(answeredMs)
  } ms`;
}

/** Whether a client was told that it will not get this message. */
function isAnnounced(book: Book, { epoch, seq }: Accepted): boolean {
  // An epoch may come and go while the client is away: the gap says that nobody knows what was in between.
  if (!book.epochs.has(epoch)) return book.gaps.some(({ isEpochGap }) => isEpochGap);
  return book.gaps.some((gap) => gap.epoch === epoch && gap.from <= seq && seq <= gap.to);
}
