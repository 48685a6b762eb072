/**
 * The last broadcasts of this node, and what is known to be missing between them: a log of which the newest entries are
 * kept, and from which every connection reads at its own pace. Whoever reads it keeps two numbers: the index of its next
 * entry, and the number of the last broadcast that it had or was told it missed.
 *
 * It is written by one `Replay`, so what stands in it is in order and each once. It knows no connection and writes to
 * nobody.
 */
import { Buffer } from "node:buffer";
import {
  broadcastFrameOf,
  frameOf,
  isEnvelope,
  payloadOf,
  receiptOf,
  replayedBroadcast,
  timesIn,
  wrapForeign,
} from "../protocol/envelope.ts";
import type { Position } from "../protocol/position.ts";

type Payload = string | Uint8Array<ArrayBuffer>;

/** A broadcast, written once for all who get it. */
export class BroadcastMessage {
  /** The `b` frame. */
  readonly frame: string;
  readonly byteLength: number;
  /** Where the sender is told how many got it. */
  readonly receipt: string | undefined;
  /** To how many connections it was given, or is kept for. */
  handed = 0;
  /** An envelope, or a payload that was published without one. */
  readonly source: Payload;
  #replayFrame: string | undefined;
  #payload: Payload | undefined;

  constructor(source: Payload, byteLength: number | undefined) {
    const isOurs = typeof source === "string" && isEnvelope(source);
    this.source = source;
    this.frame = broadcastFrameOf(isOurs ? frameOf(source) : wrapForeign(source, Date.now()));
    this.byteLength = byteLength ?? Buffer.byteLength(source);
    this.receipt = isOurs ? receiptOf(source) : undefined;
    if (!isOurs) this.#payload = source;
  }

  /** The frame for those to whom it comes later. */
  get replayFrame(): string {
    return this.#replayFrame ??= replayedBroadcast(this.frame);
  }

  /** What raw connections get. */
  get payload(): Payload {
    return this.#payload ??= payloadIn(this.source as string);
  }
}

/** What only begins as an envelope is a payload as it stands, or every further pass would fail at it again. */
function payloadIn(envelope: string): Payload {
  try {
    return payloadOf(envelope);
  } catch {
    return envelope;
  }
}

/** What a reader finds at an index. */
export interface RingEntry {
  /** Where a reader stands after it. */
  readonly position: Position;
  /** Undefined where something is missing. */
  readonly message: BroadcastMessage | undefined;
  /** Whether it has a number of its own; a message that has none is handed out all the same. */
  readonly isNumbered: boolean;
  /** A new epoch begins with it. */
  readonly beginsEpoch: boolean;
  /** When it has left, on the clock of `performance.now()`. */
  readonly endsMs: number;
}

export interface RingLimits {
  /** Entries. */
  readonly entries: number;
  /** Bytes of messages, if it is more than one message. */
  readonly bytes: number;
  /** How long a message is kept unless its sender says otherwise, in milliseconds. */
  readonly ttlMs: number;
}

const NOWHERE: Position = { epoch: "", seq: 0 };

export class BroadcastRing {
  /** Readers that are behind: what comes waits for them as well. */
  behind = 0;
  readonly #limits: RingLimits;
  #entries: RingEntry[] = [];
  #first = 0;
  #bytes = 0;
  /** Where a reader stands before the first entry. */
  #base = NOWHERE;
  /** Index of the last beginning of an epoch that is not kept any more. */
  #lostEpochAt = -1;

  constructor(limits: RingLimits) {
    this.#limits = limits;
  }

  /** Index of the oldest entry. */
  get first(): number {
    return this.#first;
  }

  /** Index that the next entry will have. */
  get end(): number {
    return this.#first + this.#entries.length;
  }

  /** Where a reader stands before the first entry. */
  get base(): Position {
    return this.#base;
  }

  /** Where a reader stands that has all. */
  get position(): Position {
    return this.#entries.at(-1)?.position ?? this.#base;
  }

  at(index: number): RingEntry {
    return this.#entries[index - this.#first]!;
  }

  /** Whether an epoch began at this index or after it, and that is not to be read here any more. */
  hasLostEpochSince(index: number): boolean {
    return this.#lostEpochAt >= index;
  }

  /** Begins anew, when nobody reads it yet. */
  begin(base: Position): void {
    this.#first = this.end;
    this.#entries = [];
    this.#bytes = 0;
    this.#base = base;
  }

  /** A numbered message. @param position Where a reader stands after it. @param isOld Whether it was read from the history. */
  push(
    position: Position,
    envelope: string,
    byteLength: number | undefined,
    isOld = false,
  ): BroadcastMessage {
    const { ts, ttlMs = this.#limits.ttlMs } = timesIn(envelope);
    // Only of what came by another way than live the age is not known, but by the clock of another machine.
    const ageMs = isOld ? Math.max(0, Math.min(ttlMs, Date.now() - ts)) : 0;
    const message = new BroadcastMessage(envelope, byteLength);
    this.#add({ position, message, isNumbered: true, endsMs: performance.now() + ttlMs - ageMs });
    return message;
  }

  /** A message that has no number. */
  pushUnnumbered(payload: Payload, byteLength: number): BroadcastMessage {
    const message = new BroadcastMessage(payload, byteLength);
    const endsMs = performance.now() + this.#limits.ttlMs;
    this.#add({ position: this.position, message, isNumbered: false, endsMs });
    return message;
  }

  /** All up to there is missing. */
  skipTo(position: Position): void {
    this.#add({ position, isNumbered: true });
  }

  /** A new epoch begins, there. */
  beginEpoch(position: Position): void {
    this.#add({ position, isNumbered: true, beginsEpoch: true });
  }

  /**
   * Index of the first entry after a position.
   * @returns Undefined when this does not tell: it is of an unknown epoch, ahead, or of another message of that number.
   */
  find({ epoch, seq, tag }: Position): number | undefined {
    for (let i = this.#entries.length - 1; i >= 0; i--) {
      const { position } = this.#entries[i]!;
      if (position.epoch !== epoch || position.seq > seq) continue;
      const isSame = position.seq < seq || isSameTag(tag, position.tag);
      // Behind the last of an epoch that is over, it is told where the next one begins.
      const isAhead = position.seq < seq && i === this.#entries.length - 1;
      return isSame && !isAhead ? this.#first + i + 1 : undefined;
    }
    const base = this.#base;
    if (base.epoch !== epoch || epoch === "" || seq > base.seq) return undefined;
    return seq < base.seq || isSameTag(tag, base.tag) ? this.#first : undefined;
  }

  #add(entry: Partial<RingEntry> & Pick<RingEntry, "position" | "isNumbered">): void {
    const { message } = entry;
    this.#entries.push({ message: undefined, beginsEpoch: false, endsMs: Infinity, ...entry });
    this.#bytes += message?.byteLength ?? 0;
    if (message) message.handed = this.behind;
    const { entries, bytes } = this.#limits;
    while (this.#entries.length > entries || this.#bytes > bytes && this.#entries.length > 1) this.#drop();
  }

  #drop(): void {
    const { position, message, beginsEpoch } = this.#entries.shift()!;
    if (beginsEpoch) this.#lostEpochAt = this.#first;
    this.#base = position;
    this.#bytes -= message?.byteLength ?? 0;
    this.#first++;
  }
}

/** Whether two tags are of one message, as far as both are known. */
function isSameTag(one: string | undefined, other: string | undefined): boolean {
  return !one || !other || one === other;
}
