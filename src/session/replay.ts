/**
 * What one framed connection has had, and what it gets next: merges live messages with those from the history, so
 * that each comes once and in order, and states exactly what can't come.
 *
 * Three things drive it: live messages, answers of the history, and its owner's word that something may be missing
 * (`verify`) or that there is room again (`resume`).
 *
 *     reading ──▶ live ──▶ reading …        a hole, a reconnect, or a doubt
 *        │          │
 *        ▼          ▼
 *      full / failed ──▶ reading            `resume`
 *
 * *reading*: the history is being read; live messages queue, a few of them. *live*: each message goes straight
 * through. *full*: the client takes no more, live messages are left to the history. *failed*: the history could not
 * be read.
 *
 * It rests on two promises: what was heard on the channel is stored already, so a read that is issued later covers
 * it; and the channel is in order, so a number that is not higher than the one before, and the number 1, may be of a
 * new epoch. The tag of a message tells its epoch, too: one of another epoch is a reason to read, and is never handed
 * over by itself. What the history then does not know comes from another installation, or from a server that was
 * replaced.
 */
import type { History, Page, Stored } from "../history/history.ts";
import { isOfEpoch, tagIn } from "../protocol/envelope.ts";
import type { GapFrame, HiFrame } from "../protocol/frames.ts";
import { formatPlace, type Position } from "../protocol/position.ts";
import { holds, placeIn } from "./place.ts";

/** Where the replay sends what it has put in order. */
export interface ReplayOutput {
  /**
   * Hands an envelope to the client; false when the client takes no more now.
   * @param byteLength Size of the envelope; undefined when it was read from the history.
   */
  deliver(envelope: string, byteLength: number | undefined): boolean;
  gap(frame: GapFrame): void;
  /** A message came on the channel that is not of this installation's history. Called for the first of such. */
  onForeign(): void;
  /** The history could not be read; `resume` tries again. */
  onReadFailed(error: unknown): void;
}

export interface ReplayOptions {
  channel: string;
  /** Messages that a resume replays at most; older ones become a gap. */
  maxReplay: number;
}

interface Queued extends Stored {
  readonly tag: string;
  readonly byteLength: number;
}

/** What `hi` says of it. */
export type ReplayGreeting = Pick<HiFrame, "tag" | "resumed" | "replay"> & { pos: string };

/** Messages read at one time: at first, and when the client takes few or all of them. */
const FIRST_BATCH = 64;
const MIN_BATCH = 4;
const MAX_BATCH = 128;
/** Live messages that wait while the history is read. More than that is read from the history again. */
const MAX_QUEUED = 64;

export class Replay {
  readonly #history: History;
  readonly #output: ReplayOutput;
  readonly #options: ReplayOptions;
  #state: "reading" | "live" | "full" | "failed" | "stopped" = "reading";
  /** The last message that was delivered or announced as missing. */
  #epoch = "";
  #seq = 0;
  /** Tag of that message; "" when it is not known. */
  #tag = "";
  #queue: Queued[] = [];
  /** The number heard last on the channel, delivered or not. */
  #heard = 0;
  /** The read under way is not the last: the queue does not hold all, or not of this epoch, or somebody doubts. */
  #again = false;
  #batch = FIRST_BATCH;
  #first: Page | undefined;
  #wanted: Position | undefined;
  /** Tag of the last message that is not of this epoch, and whether the history was read since and knows nothing of it. */
  #strange = "";
  #isForeign = false;

  constructor(history: History, output: ReplayOutput, options: ReplayOptions) {
    this.#history = history;
    this.#output = output;
    this.#options = options;
  }

  /** Where the client stands. */
  get position(): Position {
    return { epoch: this.#epoch, seq: this.#seq, ...(this.#tag !== "" && { tag: this.#tag }) };
  }

  get isLive(): boolean {
    return this.#state === "live";
  }

  /** Whether the client took no more; `resume` when it does again. */
  get isFull(): boolean {
    return this.#state === "full";
  }

  /** Whether the history could not be read; `resume` tries again. */
  get hasFailed(): boolean {
    return this.#state === "failed";
  }

  /**
   * Reads the first page. With a position to resume from, call it when the subscription is confirmed, so that
   * nothing falls in between; without one before it is, since what was handed to the subscription is to be delivered.
   * @throws {BrokerUnavailableError}
   */
  async load(wanted: Position | undefined): Promise<void> {
    this.#wanted = wanted;
    const proof = wanted?.tag !== undefined;
    this.#first = await this.#history.since(this.#options.channel, wanted?.seq, this.#batch, { proof });
  }

  /** Fixes where the connection starts. Call once, after `load`, when the client can be written to; then `run`. */
  greeting(): ReplayGreeting {
    const first = this.#first!;
    this.#epoch = first.epoch;
    if (this.#keepOwn()) this.#again = true;
    const wanted = this.#wanted;
    const resumed = wanted !== undefined && holds(first, wanted);
    if (wanted) {
      this.#standAt(resumed ? wanted.seq : placeIn(first, wanted), first, wanted.seq);
      if (resumed && this.#tag === "") this.#tag = wanted.tag ?? "";
      // What was read began at a number of another epoch.
      if (!resumed) this.#first = undefined;
    } else {
      // Nothing is owed to a new client from before the first message that its subscription got.
      const heard = this.#again ? undefined : this.#queue[0];
      this.#standAt(Math.max(first.last, (heard?.seq ?? 0) - 1), first);
      // What was read is from before the subscription: what came since may even be of another epoch.
      if (heard) this.#first = undefined;
    }
    const replay = Math.max(0, Math.min(first.last - this.#seq, this.#options.maxReplay));
    return { ...this.#place(), resumed, replay };
  }

  /** Announces what the start could not take up, replays, and goes live. */
  run(): void {
    const first = this.#first;
    const wanted = this.#wanted;
    this.#wanted = undefined;
    this.#first = undefined;
    if (this.#isStopped) return;
    if (wanted && !first) this.#output.gap(this.#epochGap(wanted));
    void this.#readOn(first, wanted !== undefined);
  }

  /** A live message arrived. */
  live(seq: number, envelope: string, byteLength: number): void {
    const tag = tagIn(envelope);
    // Before the start it is not known yet which epoch it is.
    if (this.#epoch !== "" && !isOfEpoch(tag, this.#epoch)) return this.#onStranger(tag);
    const isDoubtful = seq === 1 || seq <= this.#heard;
    this.#heard = seq;
    if (this.#state === "live") {
      // Ahead, some are missing. Behind, it was in the last page that was read.
      if (isDoubtful || seq > this.#seq + 1) {
        this.#queue.push({ seq, envelope, tag, byteLength });
        this.verify();
      } else if (seq === this.#seq + 1 && !this.#hand(seq, envelope, tag, byteLength)) {
        this.#pause();
      }
    } else if (this.#state === "reading") {
      const fits = this.#queue.length < MAX_QUEUED;
      if (fits) this.#queue.push({ seq, envelope, tag, byteLength });
      if (!fits || isDoubtful) this.#again = true;
    }
    // Else it waits in the history.
  }

  /** Compares with the history, and delivers or announces what is missing. */
  verify(): void {
    if (this.#state === "live") void this.#readOn();
    else this.#again = true;
  }

  /** There is room again, or the history may be readable again. */
  resume(): void {
    if (this.#state === "full" || this.#state === "failed") void this.#readOn();
  }

  /** Delivers nothing more, and frees what waits. */
  stop(): void {
    if (this.#isStopped) return;
    if (this.#tag !== "") this.#history.left?.(this.#options.channel, this.position);
    this.#state = "stopped";
    this.#queue = [];
  }

  get #isStopped(): boolean {
    return this.#state === "stopped";
  }

  /** @param cap More than may be replayed at most is skipped. */
  async #readOn(page?: Page, cap = false): Promise<void> {
    this.#state = "reading";
    let heard: Queued[] = [];
    for (;;) {
      if (!page) {
        heard = this.#queue;
        this.#queue = [];
        this.#again = false;
        try {
          const proof = this.#tag !== "";
          page = await this.#history.since(this.#options.channel, this.#seq, this.#batch, { proof });
        } catch (error) {
          if (this.#isStopped) return;
          this.#state = "failed";
          return this.#output.onReadFailed(error);
        }
        if (this.#isStopped) return;
      }
      if (cap && holds(page, this.position)) {
        cap = false;
        this.#skipTo(page.last - this.#options.maxReplay, page);
      }
      if (!this.#apply(page, [...heard, ...this.#queue])) return this.#pause();
      const isEnd = page.upTo >= page.last;
      page = undefined;
      if (!isEnd || this.#again) continue;
      if (!this.#drainQueue()) return this.#pause();
      // Something is left in the queue only behind a hole.
      if (this.#queue.length > 0 || this.#again) continue;
      if (!this.#isStopped) this.#state = "live";
      return this.#judgeStrangers();
    }
  }

  /** A message that is not of this epoch: a new one may have begun. */
  #onStranger(tag: string): void {
    const isKnown = isOfEpoch(tag, this.#strange);
    this.#strange = tag;
    if (isKnown && this.#isForeign) return;
    this.#isForeign = false;
    if (this.#state === "live" || this.#state === "reading") this.verify();
  }

  /** The history was read since they came: what it does not know is not ours. */
  #judgeStrangers(): void {
    if (this.#strange === "" || this.#isForeign) return;
    if (isOfEpoch(this.#strange, this.#epoch)) {
      this.#strange = "";
    } else {
      this.#isForeign = true;
      this.#output.onForeign();
    }
  }

  /** Of what has waited, keeps what may be of this epoch; says whether there was anything else. */
  #keepOwn(): boolean {
    const queue = this.#queue;
    this.#queue = queue.filter(({ tag }) => isOfEpoch(tag, this.#epoch));
    return this.#queue.length < queue.length;
  }

  #pause(): void {
    if (this.#isStopped) return;
    this.#state = "full";
    this.#queue = [];
  }

  /**
   * Delivers a page; false when the client takes no more.
   * @param heard What came live, and so is no replay.
   */
  #apply(page: Page, heard: readonly Queued[]): boolean {
    const before = this.position;
    if (!holds(page, before)) {
      this.#epoch = page.epoch;
      this.#standAt(placeIn(page, before), page, before.seq);
      this.#keepOwn();
      this.#output.gap(this.#epochGap(before));
      // It was read from a place in the old epoch: the next one is read from the right place.
      this.#again = true;
      return true;
    }
    for (const [i, { seq, envelope }] of page.items.entries()) {
      if (seq <= this.#seq) continue;
      this.#skipTo(seq - 1, page);
      const live = heard.find((message) => message.seq === seq && message.envelope === envelope);
      if (!this.#hand(seq, envelope, tagIn(envelope), live?.byteLength)) {
        // The rest was read for nothing: next time about as many as it takes.
        this.#batch = Math.max(MIN_BATCH, Math.min(2 * i, MAX_BATCH));
        return false;
      }
    }
    if (page.upTo < page.last) this.#batch = Math.min(2 * this.#batch, MAX_BATCH);
    this.#skipTo(page.upTo, page);
    return true;
  }

  /** Delivers what waited, as far as it is next; false when the client takes no more. */
  #drainQueue(): boolean {
    const queue = this.#queue;
    let taken = 0;
    for (const { seq, envelope, tag, byteLength } of queue) {
      if (seq > this.#seq + 1) break;
      if (seq > this.#seq && !this.#hand(seq, envelope, tag, byteLength)) return false;
      taken++;
    }
    this.#queue = queue.slice(taken);
    return true;
  }

  #hand(seq: number, envelope: string, tag: string, byteLength: number | undefined): boolean {
    if (this.#isStopped || !this.#output.deliver(envelope, byteLength)) return false;
    this.#seq = seq;
    this.#tag = tag;
    return true;
  }

  /** Takes a place, with its tag if the page tells it. */
  #standAt(seq: number, { last, lastTag, afterTag }: Page, after?: number): void {
    this.#seq = seq;
    this.#tag = seq === last ? lastTag : seq === after ? afterTag : "";
  }

  #place(): { pos: string; tag?: string } {
    return { pos: formatPlace(this.position), ...(this.#tag !== "" && { tag: this.#tag }) };
  }

  /** Announces everything up to a number as missing. */
  #skipTo(seq: number, page: Page): void {
    if (seq <= this.#seq || this.#isStopped) return;
    const from = this.#seq + 1;
    this.#standAt(seq, page);
    this.#output.gap({ t: "gap", from, to: seq, count: seq - from + 1, why: "trimmed", ...this.#place() });
  }

  #epochGap(before: Position): GapFrame {
    return { t: "gap", from: before.seq + 1, to: null, count: null, why: "epoch", ...this.#place() };
  }
}
