/**
 * How far one connection has come in the broadcasts, and what it gets next: all that the node's ring has after its place,
 * in order, each once; and the announcement of what can't come. The ring's order is that of all connections, so it keeps
 * two numbers and queues nothing.
 *
 * A client that takes no more is *behind*: what comes waits in the ring, and is announced as missing when it has left
 * there.
 */
import type { BroadcastGapFrame } from "../protocol/frames.ts";
import { formatPlace, type Position } from "../protocol/position.ts";
import type { BroadcastMessage, BroadcastRing } from "./broadcast_ring.ts";

/** Where a connection begins. */
export interface BroadcastPlace {
  readonly position: Position;
  /** Where its client stands, when that could not be taken up. */
  readonly instead?: Position | undefined;
}

/** Where the reader writes. */
export interface BroadcastOutput {
  /** False when the client takes no more now; its owner then calls `resume` when it does. */
  broadcast(message: BroadcastMessage, isReplayed: boolean): boolean;
  gap(frame: BroadcastGapFrame): void;
  /** So many were left out, and the client can't be told which. */
  miss(count: number): void;
}

export class BroadcastReader {
  readonly #ring: BroadcastRing;
  readonly #output: BroadcastOutput;
  /** Index of the next entry. */
  #at: number;
  /** Number of the last broadcast that was delivered or announced as missing. */
  #seq: number;
  #state: "held" | "level" | "behind" | "stopped" = "held";
  /** Kept until `run`. */
  #start: BroadcastPlace | undefined;

  /** From here on nothing is missed. */
  constructor(ring: BroadcastRing, output: BroadcastOutput, start: BroadcastPlace) {
    this.#ring = ring;
    this.#output = output;
    this.#start = start;
    this.#at = ring.find(start.position) ?? ring.end;
    this.#seq = start.position.seq;
  }

  /** Whether the client took no more; `resume` when it does again. */
  get isBehind(): boolean {
    return this.#state === "behind";
  }

  /** What `hi` says of it: nothing where broadcasts have no numbers. */
  greeting(): { all?: string } {
    const position = this.#start?.position;
    return position && position.epoch !== "" ? { all: formatPlace(position) } : {};
  }

  /** Announces what could not be taken up, and sends what there is. Call it once, when the client can be written to. */
  run(): void {
    const { position, instead } = this.#start!;
    this.#start = undefined;
    this.#enter("level");
    if (instead) this.#tellEpoch(instead.seq, position);
    this.#read(true);
  }

  /** There is something new in the ring. */
  take(): void {
    // What waits for a client that is behind was counted as it came.
    if (this.#state === "level") this.#read(false);
  }

  /** There is room again. */
  resume(): void {
    if (this.isBehind) this.#read(true);
  }

  /** Reads no more. */
  stop(): void {
    this.#enter("stopped");
  }

  /** @param isLate What is read comes later than it could have: it was there before the connection, or waited for room. */
  #read(isLate: boolean): void {
    const ring = this.#ring;
    if (this.#at < ring.first) this.#jump();
    const nowMs = isLate ? performance.now() : 0;
    for (; this.#at < ring.end; this.#at++) {
      const { message, position, isNumbered, beginsEpoch, endsMs } = ring.at(this.#at);
      if (beginsEpoch) this.#tellEpoch(this.#seq, position);
      if (!message || endsMs < nowMs || isNumbered && position.seq <= this.#seq) continue;
      if (isNumbered && position.seq > this.#seq + 1) this.#tellMissing(position.epoch, position.seq - 1);
      if (!this.#output.broadcast(message, isLate)) return this.#fallBehind(isLate);
      if (!isLate) message.handed++;
      if (isNumbered) this.#seq = position.seq;
    }
    const { epoch, seq, tag } = ring.position;
    if (seq > this.#seq) this.#tellMissing(epoch, seq, tag);
    this.#enter("level");
  }

  /** What came just now and waits for the client counts as handed to it. */
  #fallBehind(isLate: boolean): void {
    this.#enter("behind");
    if (isLate) return;
    for (let index = this.#at; index < this.#ring.end; index++) {
      const { message } = this.#ring.at(index);
      if (message) message.handed++;
    }
  }

  #enter(state: "level" | "behind" | "stopped"): void {
    const before = this.#state;
    if (state === before || before === "stopped") return;
    this.#state = state;
    if (state === "behind") this.#ring.behind++;
    if (before === "behind") this.#ring.behind--;
  }

  /** What comes next has left the ring. */
  #jump(): void {
    const { base, first } = this.#ring;
    if (this.#ring.hasLostEpochSince(this.#at)) this.#tellEpoch(this.#seq, base);
    // Where nothing has a number, the indexes tell how many are missing.
    if (base.epoch === "") this.#output.miss(first - this.#at);
    this.#at = first;
  }

  /** Announces everything up to a number as missing. */
  #tellMissing(epoch: string, to: number, tag?: string): void {
    const from = this.#seq + 1;
    this.#seq = to;
    const place = placeOf({ epoch, seq: to, tag });
    this.#output.gap({ t: "bgap", from, to, count: to - from + 1, why: "trimmed", ...place });
  }

  #tellEpoch(before: number, position: Position): void {
    this.#seq = position.seq;
    this.#output.gap({
      t: "bgap",
      from: before + 1,
      to: null,
      count: null,
      why: "epoch",
      ...placeOf(position),
    });
  }
}

function placeOf(position: Position): { pos: string; tag?: string } {
  return { pos: formatPlace(position), ...(position.tag && { tag: position.tag }) };
}
