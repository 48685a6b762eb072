/** What one client saw: where it stood, what it was handed, and what it was told it will not get. */
import type { GapFrame } from "../../../src/client/mod.ts";
import { originOf } from "../../../src/history/epochs.ts";

/** A send that was answered 2xx. */
export interface Accepted {
  readonly user: string;
  /** Number of the send, in the payload too. */
  readonly n: number;
  readonly epoch: string;
  readonly seq: number;
  /** Of how many sockets the answer spoke. */
  readonly sockets: number | undefined;
  /** When it was tried first, when the try began that was answered, and when that was; on the ledger's clock. */
  readonly triedMs: number;
  readonly sentMs: number;
  readonly answeredMs: number;
  /** How often it was tried. */
  readonly tries: number;
}

/** Where a client stands. */
export interface Place {
  readonly epoch: string;
  readonly seq: number;
}

/** A message that was handed over, and where the client then stood. */
export interface Handed extends Place {
  readonly n: number;
  /** When the client had learned of this epoch. */
  readonly epochMs: number;
  /** How often it had been led back before, from nobody knows where. */
  readonly setBacks: number;
}

/** What a client was told that it will not get. */
interface Told {
  readonly why: GapFrame["why"];
  readonly before: Place;
  readonly after: Place;
  readonly atMs: number;
  /** Whether it led back, since nobody knows from where on numbers were given out again. */
  readonly isSetBack: boolean;
  /** Number of the send that it was handed last before, and when; undefined when there was none. */
  readonly last: { readonly n: number; readonly atMs: number } | undefined;
}

/** When a send was tried first, and when the try began that was answered. */
export type Tried = Pick<Accepted, "triedMs" | "sentMs">;

/** What was told so long before a message that was lost was tried first, or after its answer, explains it. */
const AROUND_MS = { before: 10_000, after: 60_000 };

export class Book {
  #place: Place | undefined;
  #epochMs = 0;
  #setBacks = 0;
  /** Whether nothing can tell from where on its numbers were given out again. */
  isPutBack = false;
  /** Whether Redis may have lost what it had published, and had answered nobody: then nothing can tell either, at times. */
  mayHaveUnanswered = false;
  #last: Told["last"];
  readonly #told: Told[] = [];
  /** Each send that was handed over, with every time that it was. */
  readonly handed = new Map<number, Handed[]>();
  /** What can be said at once to be wrong. */
  readonly faults: string[] = [];

  /** Where it stands; before the first connection, nowhere. */
  get place(): Place {
    return this.#place ?? { epoch: "", seq: 0 };
  }

  /** A connection opened at a position. Only the first one tells something new. */
  opened(position: string | undefined, nowMs: number): void {
    if (this.#place) return;
    const place = placeOf(position);
    if (place) this.#moveTo(place, nowMs);
    else this.faults.push(`was opened at "${position}", which is no position`);
  }

  received(seq: number | undefined, n: number, nowMs: number): void {
    if (seq === undefined) return void this.faults.push(`got send ${n} without a number`);
    const before = this.place;
    if (seq <= before.seq) this.faults.push(`got ${seq} after ${before.seq}`);
    if (seq > before.seq + 1) this.faults.push(`got ${seq} after ${before.seq} and no gap in between`);
    this.#place = { epoch: before.epoch, seq };
    this.#last = { n, atMs: nowMs };
    const handed = { n, ...this.#place, epochMs: this.#epochMs, setBacks: this.#setBacks };
    const earlier = this.handed.get(n);
    if (earlier) earlier.push(handed);
    else this.handed.set(n, [handed]);
  }

  missed(gap: GapFrame, nowMs: number): void {
    const before = this.place;
    const after = placeOf(gap.pos);
    if (!after) return void this.faults.push(`was told of a gap that ends at "${gap.pos}"`);
    if (gap.from !== before.seq + 1) {
      this.faults.push(`stands at ${before.seq}, and the gap begins at ${gap.from}`);
    }
    if (gap.why === "trimmed") {
      if (gap.count !== gap.to - gap.from + 1) this.faults.push(`was told of a gap that miscounts`);
      if (after.epoch !== before.epoch || after.seq !== gap.to) {
        this.faults.push(`stands at ${gap.pos} after a gap up to ${before.epoch}.${gap.to}`);
      }
    }
    const isOfNothing = after.seq === 0 && originOf(after.epoch) === undefined;
    const isVague = this.isPutBack || after.epoch === before.epoch || this.mayHaveUnanswered && isOfNothing;
    const isSetBack = gap.why === "epoch" && isVague && after.seq < before.seq;
    if (isSetBack) this.#setBacks++;
    this.#told.push({ why: gap.why, before, after, atMs: nowMs, isSetBack, last: this.#last });
    this.#moveTo(after, nowMs);
  }

  /**
   * Whether it was told that it will not get this message. A gap speaks of what had been sent when it was announced, never
   * of what came later. One of kind `trimmed` speaks of its own numbers. One of kind `epoch` speaks of what lies after the
   * position before it: in that epoch by its number, in another by the order in which the sends were accepted; and
   * what lies after the new position was to be delivered. Where that leads back from nobody knows where, the old numbers
   * are those of the new epoch, too.
   * @param acceptedMs When the message was accepted.
   * @param sendOf The send with a number.
   */
  isTold(
    message: Accepted,
    acceptedMs: number,
    sendOf: (n: number) => Tried | undefined,
  ): boolean {
    const setBack = this.#told.find(({ isSetBack, before, atMs }) =>
      isSetBack && acceptedMs <= atMs && message.epoch === before.epoch && message.seq <= before.seq
    );
    return this.#told.some(({ why, before, after, atMs, last }) => {
      if (acceptedMs > atMs) return false;
      const isOfOld = message.epoch === before.epoch ||
        why === "trimmed" && setBack?.after.epoch === before.epoch && setBack.atMs <= atMs;
      if (why !== "epoch") return isOfOld && message.seq > before.seq && message.seq <= after.seq;
      if (isOfOld) return message.seq > before.seq;
      if (message.epoch === after.epoch && message.seq > after.seq) return false;
      return beganMs(last, sendOf) <= message.answeredMs;
    });
  }

  /**
   * The same of a message whose place nobody was told, as of one to a group: of gaps of kind `epoch`, by the order in which
   * sends were accepted.
   */
  isToldAnywhere(
    { triedMs, answeredMs }: Pick<Accepted, "triedMs" | "answeredMs">,
    sendOf: (n: number) => Tried | undefined,
  ): boolean {
    return this.#told.some(({ why, atMs, last }) =>
      why === "epoch" && triedMs <= atMs && beganMs(last, sendOf) <= answeredMs
    );
  }

  /** The places that lie in gaps of kind `trimmed`, and when it was told of them. */
  get trimmed(): { readonly place: string; readonly atMs: number }[] {
    return this.#told.filter(({ why }) => why === "trimmed").flatMap(({ before, after, atMs }) =>
      Array.from({ length: Math.max(0, after.seq - before.seq) }, (_, i) => ({
        place: `${before.epoch}.${before.seq + i + 1}`,
        atMs,
      }))
    );
  }

  /** What it was told around a send, as text: who was away is told when they come back. */
  toldAround({ triedMs, answeredMs }: Pick<Accepted, "triedMs" | "answeredMs">): string {
    const fromMs = triedMs - AROUND_MS.before, toMs = answeredMs + AROUND_MS.after;
    const ones = this.#told.filter(({ atMs }) => atMs > fromMs && atMs < toMs);
    return ones.map(({ why, before, after, atMs }) =>
      `${why} from ${before.epoch}.${before.seq} to ${after.epoch}.${after.seq} at ${Math.round(atMs)} ms`
    ).join(", ") || "nothing";
  }

  #moveTo(place: Place, nowMs: number): void {
    if (place.epoch !== this.#place?.epoch) this.#epochMs = nowMs;
    this.#place = place;
  }
}

/** When the try began, at the earliest, with which the last message came: not the last try, if it came before that. */
function beganMs(last: Told["last"], sendOf: (n: number) => Tried | undefined): number {
  const tried = last && sendOf(last.n);
  if (!tried) return -Infinity;
  return tried.sentMs <= last.atMs ? tried.sentMs : tried.triedMs;
}

/** Reads a position as clients are given it, with or without a proof. */
function placeOf(position: string | undefined): Place | undefined {
  const match = /^([^.]+)\.(\d+)(?:\.[^.]*)?$/.exec(position ?? "");
  return match ? { epoch: match[1]!, seq: Number(match[2]) } : undefined;
}
