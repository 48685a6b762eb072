/**
 * What one framed connection has had, and what it gets next: merges live messages with those from the inbox, so
 * that each comes once and in order, and states exactly what can't come.
 *
 * It has no socket and no timer. Three things drive it: live messages, answers of the inbox, and its owner's word
 * that something may be amiss (`verify`) or that there is room again (`resume`).
 *
 *     reading ──▶ live ──▶ reading …        a hole, a reconnect, or a doubt
 *        │          │
 *        ▼          ▼
 *      full / failed ──▶ reading            `resume`
 *
 * *reading*: the inbox is being read; live messages queue, a few of them. *live*: each message goes straight
 * through. *full*: the client takes no more, live messages are left to the inbox. *failed*: the inbox could not
 * be read.
 *
 * It rests on two promises: what was heard on the channel is stored already, so a read that is issued later covers
 * it; and the channel is in order, so a number that is not higher than the one before, and the number 1, may be of a
 * new epoch. Messages themselves do not name their epoch.
 */
import { type Inbox, originOf, ownNameOf, type Stored, type Stretch } from "./inbox/inbox.ts";
import { formatPosition, type GapFrame, type Position } from "./protocol.ts";

export interface ReplayHost {
  /**
   * Hands an envelope to the client; false when the client takes no more now.
   * @param byteLength Size of the envelope; undefined when it was read from the inbox.
   */
  deliver(envelope: string, byteLength: number | undefined): boolean;
  gap(frame: GapFrame): void;
  /** The inbox could not be read; `resume` tries again. */
  onReadFailed(error: unknown): void;
}

export interface ReplayOptions {
  channel: string;
  /** Messages that a resume replays at most; older ones become a gap. */
  maxReplay: number;
}

interface Queued extends Stored {
  readonly byteLength: number;
}

/** What `hi` says. */
export interface ReplayStart {
  pos: string;
  resumed: boolean;
  replay: number;
}

/** Messages read at one time: at first, and when the client takes few or all of them. */
const FIRST_BATCH = 64;
const MIN_BATCH = 4;
const MAX_BATCH = 128;
/** Live messages that wait while the inbox is read. More than that is read from the inbox again. */
const MAX_QUEUED = 64;

export class Replay {
  readonly #inbox: Inbox;
  readonly #host: ReplayHost;
  readonly #options: ReplayOptions;
  #state: "reading" | "live" | "full" | "failed" | "stopped" = "reading";
  /** The last message that was delivered or announced as missing. */
  #epoch = "";
  #seq = 0;
  #queue: Queued[] = [];
  /** The number heard last on the channel, delivered or not. */
  #heard = 0;
  /** The read under way is not the last: the queue does not hold all, or not of this epoch, or somebody doubts. */
  #again = false;
  #batch = FIRST_BATCH;
  #first: Stretch | undefined;
  #wanted: Position | undefined;

  constructor(inbox: Inbox, host: ReplayHost, options: ReplayOptions) {
    this.#inbox = inbox;
    this.#host = host;
    this.#options = options;
  }

  /** Where the client stands. */
  get position(): Position {
    return { epoch: this.#epoch, seq: this.#seq };
  }

  get isLive(): boolean {
    return this.#state === "live";
  }

  /** Whether the client took no more; `resume` when it does again. */
  get isFull(): boolean {
    return this.#state === "full";
  }

  /** Whether the inbox could not be read; `resume` tries again. */
  get hasFailed(): boolean {
    return this.#state === "failed";
  }

  /**
   * Reads the first stretch. With a position to resume from, call it when the subscription is confirmed, so that
   * nothing falls in between; without one before it is, since what was handed to the subscription is to be delivered.
   * @param wanted The position to resume from, if any.
   * @throws {BrokerUnavailableError}
   */
  async open(wanted: Position | undefined): Promise<void> {
    this.#wanted = wanted;
    this.#first = await this.#inbox.since(this.#options.channel, wanted?.seq, this.#batch);
  }

  /** Fixes where the connection starts. Call once, after `open`, when the client can be written to; then `begin`. */
  start(): ReplayStart {
    const first = this.#first!;
    this.#epoch = first.epoch;
    const wanted = this.#wanted;
    const resumed = wanted !== undefined && wanted.epoch === first.epoch && wanted.seq <= first.last;
    if (wanted) {
      this.#seq = resumed ? wanted.seq : placeIn(first, wanted);
      // What was read began at a number of another epoch.
      if (!resumed) this.#first = undefined;
    } else {
      // Nothing is owed to a new client from before the first message that its subscription got.
      const heard = this.#again ? undefined : this.#queue[0];
      this.#seq = Math.max(first.last, (heard?.seq ?? 0) - 1);
      // What was read is from before the subscription: what came since may even be of another epoch.
      if (heard) this.#first = undefined;
    }
    const replay = Math.max(0, Math.min(first.last - this.#seq, this.#options.maxReplay));
    return { pos: formatPosition(this.position), resumed, replay };
  }

  /** Announces what the start could not take up, replays, and goes live. */
  begin(): void {
    const first = this.#first;
    const wanted = this.#wanted;
    this.#wanted = undefined;
    this.#first = undefined;
    if (this.#isStopped) return;
    if (wanted && !first) this.#host.gap(this.#epochGap(wanted));
    void this.#run(first, { cap: wanted !== undefined });
  }

  /** A live message arrived. */
  live(seq: number, envelope: string, byteLength: number): void {
    const isDoubtful = seq === 1 || seq <= this.#heard;
    this.#heard = seq;
    if (this.#state === "live") {
      // Ahead, some are missing. Behind, it was in the last stretch that was read.
      if (isDoubtful || seq > this.#seq + 1) {
        this.#queue.push({ seq, envelope, byteLength });
        this.verify();
      } else if (seq === this.#seq + 1 && !this.#hand(seq, envelope, byteLength)) {
        this.#fill();
      }
    } else if (this.#state === "reading") {
      if (this.#queue.length < MAX_QUEUED) this.#queue.push({ seq, envelope, byteLength });
      else this.#again = true;
      if (isDoubtful) this.#again = true;
    }
    // Else it waits in the inbox.
  }

  /** Compares with the inbox, and delivers or announces what is missing. */
  verify(): void {
    if (this.#state === "live") void this.#run();
    else this.#again = true;
  }

  /** There is room again, or the inbox may be readable again. */
  resume(): void {
    if (this.#state === "full" || this.#state === "failed") void this.#run();
  }

  /** Delivers nothing more. */
  stop(): void {
    this.#state = "stopped";
    this.#queue = [];
  }

  get #isStopped(): boolean {
    return this.#state === "stopped";
  }

  async #run(stretch?: Stretch, options: { cap?: boolean } = {}): Promise<void> {
    this.#state = "reading";
    let { cap = false } = options;
    let heard: Queued[] = [];
    for (;;) {
      if (!stretch) {
        heard = this.#queue;
        this.#queue = [];
        this.#again = false;
        try {
          stretch = await this.#inbox.since(this.#options.channel, this.#seq, this.#batch);
        } catch (error) {
          if (this.#isStopped) return;
          this.#state = "failed";
          this.#host.onReadFailed(error);
          return;
        }
        if (this.#isStopped) return;
      }
      if (cap && stretch.epoch === this.#epoch) {
        cap = false;
        this.#skipTo(stretch.last - this.#options.maxReplay);
      }
      if (!this.#apply(stretch, [...heard, ...this.#queue])) return this.#fill();
      const isEnd = stretch.through >= stretch.last;
      stretch = undefined;
      if (!isEnd || this.#again) continue;
      if (!this.#drainQueue()) return this.#fill();
      // Something is left in the queue only behind a hole.
      if (this.#queue.length > 0 || this.#again) continue;
      if (!this.#isStopped) this.#state = "live";
      return;
    }
  }

  #fill(): void {
    if (this.#isStopped) return;
    this.#state = "full";
    this.#queue = [];
  }

  /**
   * Delivers a stretch; false when the client takes no more.
   * @param heard What came live, and so is no replay.
   */
  #apply(stretch: Stretch, heard: readonly Queued[]): boolean {
    if (stretch.epoch !== this.#epoch || stretch.last < this.#seq) {
      const before = this.position;
      this.#epoch = stretch.epoch;
      this.#seq = placeIn(stretch, before);
      this.#host.gap(this.#epochGap(before));
      // It was read from a place in the old epoch: the next one is read from the right place.
      this.#again = true;
      return true;
    }
    for (const [i, { seq, envelope }] of stretch.items.entries()) {
      if (seq <= this.#seq) continue;
      this.#skipTo(seq - 1);
      const live = heard.find((message) => message.seq === seq && message.envelope === envelope);
      if (!this.#hand(seq, envelope, live?.byteLength)) {
        // The rest was read for nothing: next time about as many as it takes.
        this.#batch = Math.max(MIN_BATCH, Math.min(2 * i, MAX_BATCH));
        return false;
      }
    }
    if (stretch.through < stretch.last) this.#batch = Math.min(2 * this.#batch, MAX_BATCH);
    this.#skipTo(stretch.through);
    return true;
  }

  /** Delivers what waited, as far as it is next; false when the client takes no more. */
  #drainQueue(): boolean {
    const queue = this.#queue;
    let taken = 0;
    for (; taken < queue.length; taken++) {
      const { seq, envelope, byteLength } = queue[taken]!;
      if (seq <= this.#seq) continue;
      if (seq > this.#seq + 1) break;
      if (!this.#hand(seq, envelope, byteLength)) return false;
    }
    this.#queue = queue.slice(taken);
    return true;
  }

  #hand(seq: number, envelope: string, byteLength: number | undefined): boolean {
    if (this.#isStopped || !this.#host.deliver(envelope, byteLength)) return false;
    this.#seq = seq;
    return true;
  }

  /** Announces everything up to a number as missing. */
  #skipTo(seq: number): void {
    if (seq <= this.#seq || this.#isStopped) return;
    const from = this.#seq + 1;
    this.#seq = seq;
    this.#host.gap({
      t: "gap",
      from,
      to: seq,
      count: seq - from + 1,
      why: "trimmed",
      pos: formatPosition(this.position),
    });
  }

  #epochGap(before: Position): GapFrame {
    return {
      t: "gap",
      from: before.seq + 1,
      to: null,
      count: null,
      why: "epoch",
      pos: formatPosition(this.position),
    };
  }
}

/**
 * Where a position of another epoch stands in this one. When the numbers go on from that epoch, what the client
 * has up to the break counts; else nothing does, and all there is will be new to it.
 */
function placeIn(stretch: Stretch, before: Position): number {
  if (before.epoch === stretch.epoch) return stretch.last; // ahead of the counter: only a broken client is
  const { former } = stretch;
  const index = former.findIndex(({ epoch }) => epoch === before.epoch);
  if (index >= 0) return lowest(before, former.slice(index));
  // The epoch was lost before it was saved: what counts is where it came from.
  const origin = originOf(before.epoch);
  if (!origin) return 0;
  const has = { epoch: origin.epoch, seq: Math.min(before.seq, origin.seq) };
  if (ownNameOf(stretch.epoch) === origin.epoch) {
    return lowest(has, [{ epoch: origin.epoch, seq: stretch.last }]);
  }
  const since = former.findIndex(({ epoch }) => ownNameOf(epoch) === origin.epoch);
  return since < 0 ? 0 : lowest(has, former.slice(since));
}

function lowest(position: Position, others: readonly Position[]): number {
  return Math.min(position.seq, ...others.map(({ seq }) => seq));
}
