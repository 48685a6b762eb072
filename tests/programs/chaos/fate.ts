/** What became of one message for one client that was to have it. */
import type { Accepted, Book, Handed, Tried } from "./book.ts";
import type { Circumstances } from "./circumstances.ts";

/** A way in which the books don't balance. */
export type Kind = "lost" | "doubled" | "disordered" | "misplaced" | "miscounted" | "other";

export interface Violation {
  readonly kind: Kind;
  readonly text: string;
}

/**
 * "again after loss": it came twice, and may have. "again after set back": it came again because a gap had led the client back
 * from nobody knows where. "told under way": it was told to be missing before its send was answered.
 */
export type Fate =
  | "received"
  | "again after loss"
  | "again after set back"
  | "doubled"
  | "told"
  | "told under way"
  | "lost";

export interface FateOptions {
  readonly circumstances: Circumstances;
  /** The send with a number. */
  sendOf(n: number): Tried | undefined;
}

export function fateOf(accepted: Accepted, book: Book, { circumstances, sendOf }: FateOptions): Fate {
  const handed = book.handed.get(accepted.n);
  if (handed) return fateOfCopies(accepted, handed, circumstances);
  // It was accepted at some time between its last try and the answer: the benefit of the doubt is counted.
  if (!book.isTold(accepted, accepted.sentMs, sendOf)) return "lost";
  return book.isTold(accepted, accepted.answeredMs, sendOf) ? "told" : "told under way";
}

/** @param sent When it was sent. */
export function fateOfCopies(
  sent: Parameters<Circumstances["excuses"]>[0],
  handed: readonly Handed[],
  circumstances: Circumstances,
): Fate {
  const own = handed.filter((copy, i) => !isAgainAfterSetBack(copy, handed.slice(0, i)));
  if (own.length === 1) return handed.length === 1 ? "received" : "again after set back";
  return circumstances.excuses(sent, own) ? "again after loss" : "doubled";
}

/**
 * Whether a message came at its own place: under its number, and in its epoch or one that went on from that. An
 * epoch that began when the client already stood in another can't be what the other went on from.
 */
export function isPlaceOf(
  accepted: Accepted,
  handed: Handed,
  epochsBegan: ReadonlyMap<string, number>,
): boolean {
  if (handed.seq !== accepted.seq) return false;
  if (handed.epoch === accepted.epoch) return true;
  return epochsBegan.get(`${accepted.user} ${accepted.epoch}`)! <= handed.epochMs;
}

/** When epochs can have begun at the earliest, as far as messages tell: by user and name. */
export function epochsOf(sends: Iterable<Accepted>): ReadonlyMap<string, number> {
  const began = new Map<string, number>();
  for (const { user, epoch, sentMs } of sends) {
    const key = `${user} ${epoch}`;
    began.set(key, Math.min(sentMs, began.get(key) ?? Infinity));
  }
  return began;
}

/**
 * Whether a copy is one of those before it, which came again under the same number, since the client had been led back. The
 * epoch may have gone on from the one in which it came first.
 */
function isAgainAfterSetBack({ seq, setBacks }: Handed, earlier: readonly Handed[]): boolean {
  return earlier.some((before) => before.seq === seq && before.setBacks < setBacks);
}

export function at(places: readonly Handed[]): string {
  return places.map(({ epoch, seq }) => `${epoch}.${seq}`).join(" and ");
}

export function describe({ user, n, epoch, seq, sockets, ...sent }: Accepted): string {
  return `${n} to ${user} (accepted as ${epoch}.${seq}, sockets ${sockets}, ${tried(sent)})`;
}

export function tried({ triedMs, answeredMs, tries }: Parameters<Circumstances["excuses"]>[0]): string {
  return `tried ${tries} times from ${Math.round(triedMs)} ms, answered at ${Math.round(answeredMs)} ms`;
}
