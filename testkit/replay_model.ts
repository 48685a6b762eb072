/**
 * A world for a replay: a store, the channel to it, reads that are on their way, and a client. Everything happens when
 * it is told to, down to the moment a read is carried out and the moment its answer arrives.
 *
 * It checks as it goes: the client is handed each message once, in order and in its epoch; each gap begins where the
 * client stands and covers nothing that is still stored. `finish` checks that nothing is missing.
 */
import { assert, assertEquals } from "@std/assert";
import type { History, Page, SinceOptions, Stored } from "../src/history/history.ts";
import { tagIn, withSeq } from "../src/protocol/envelope.ts";
import type { GapFrame } from "../src/protocol/frames.ts";
import { formatPlace, parsePosition, type Position } from "../src/protocol/position.ts";
import { Replay, type ReplayGreeting } from "../src/session/replay.ts";

/** A read on its way: first to the store, then back. */
interface Read {
  readonly after: number | undefined;
  readonly limit: number;
  readonly options: SinceOptions;
  readonly answer: PromiseWithResolvers<Page>;
  page: Page | undefined;
}

export interface WorldOptions {
  /** Messages the store keeps. @default 100 */
  keep?: number;
  /** @default 1000 */
  maxReplay?: number;
  /** Messages the client takes each time there is room for it. @default as many as there are */
  room?: number;
  /** Stops the replay from within the delivery of this message, counted from 1. */
  stopAfter?: number;
  /** Messages are envelopes that have a tag; else their name is all there is. @default false */
  tagged?: boolean;
}

/** A message with its name, which tells it from all others. */
interface Named extends Stored {
  readonly name: string;
}

/** Reads without end are a client that never comes to rest; so many more than the messages need are fine. */
const SPARE_READS = 16;

export class World {
  readonly replay: Replay;
  /** What the client was handed on this connection, in order: names of messages, and gaps. */
  readonly log: (string | GapFrame)[] = [];
  /** The names of those that came as replays. */
  readonly replayed: string[] = [];
  start: ReplayGreeting | undefined;
  hasRoom = true;
  readCount = 0;
  /** How often a message was taken for another installation's. */
  foreigners = 0;
  /** Messages in all answers. */
  readMessages = 0;

  readonly #keep: number;
  readonly #maxReplay: number;
  readonly #room: number;
  readonly #stopAfter: number;
  readonly #isTagged: boolean;
  /** The names of all messages that ever had a number, by epoch. */
  readonly #names = new Map<string, string[]>();
  #epoch: string;
  #last = 0;
  #previousEpochs: Position[] = [];
  #stored: Named[] = [];
  /** Tag of the newest message, also when it is stored no more. */
  #lastTag = "";
  #sent = 0;
  /** Tags by name. */
  readonly #tags = new Map<string, string>();
  #taken = 0;
  #onAir: Named[] = [];
  #isSubscribed = false;
  #reads: Read[] = [];
  /** Something went unnoticed, and nothing has come since that would show it. */
  #isBlind = false;
  /** The newest number by the last answer. */
  #told = 0;
  #isStopped = false;
  #isResume = false;
  /** What the client has, from before or from this connection, and what a resume's limit took from it. */
  readonly #had = new Set<string>();
  readonly #capped = new Set<string>();
  /** What was wrong first; thrown where a test sees it, not into the replay. */
  #fault: unknown;
  /** Where the client stands by its own count. */
  #seen: Position = { epoch: "", seq: 0 };

  constructor(options: WorldOptions = {}) {
    this.#keep = options.keep ?? 100;
    this.#maxReplay = options.maxReplay ?? 1_000;
    this.#room = options.room ?? Infinity;
    this.#stopAfter = options.stopAfter ?? Infinity;
    this.#isTagged = options.tagged ?? false;
    this.#epoch = this.#epochName(1);
    this.#names.set(this.#epoch, []);
    const onlyTheWorld = () => Promise.reject(new TypeError("Only the world appends"));
    const history: History = {
      limits: { count: this.#keep, ttlMs: 1 },
      append: onlyTheWorld,
      appendToAll: onlyTheWorld,
      openRun: onlyTheWorld,
      appendPage: onlyTheWorld,
      leaveRun: onlyTheWorld,
      claim: onlyTheWorld,
      release: onlyTheWorld,
      since: (_channel, after, limit, options = {}) => {
        this.readCount++;
        const answer = Promise.withResolvers<Page>();
        this.#reads.push({ after, limit, options, answer, page: undefined });
        return answer.promise;
      },
    };
    const output = {
      deliver: (envelope: string, byteLength: number | undefined) =>
        this.#checked(() => this.#deliver(envelope, byteLength === undefined)),
      gap: (frame: GapFrame) => void this.#checked(() => this.#gap(frame)),
      onForeign: () => void this.foreigners++,
      onReadFailed() {},
    };
    this.replay = new Replay(history, output, { channel: "alice", maxReplay: this.#maxReplay });
  }

  /** Where the store stands. */
  get position(): Position {
    return { epoch: this.#epoch, seq: this.#last };
  }

  /** A position that a client may have had: in an epoch there was, after so many of its messages, or all. */
  placeOf(epoch: number, seq: number): Position {
    const epochs = [...this.#names.keys()];
    const name = epochs[epoch % epochs.length]!;
    const messages = this.#names.get(name)!;
    const place = { epoch: name, seq: Math.min(seq, messages.length) };
    return { ...place, tag: this.#tags.get(messages[place.seq - 1] ?? "") };
  }

  /** Messages on their way to the client. */
  get onAir(): number {
    return this.#onAir.length;
  }

  // -------------------------------------------------------------------------------------------------------
  // Store and channel

  send(count = 1): void {
    for (let i = 0; i < count; i++) {
      const message = this.#message(++this.#last, `m${++this.#sent}`);
      this.#names.get(this.#epoch)!.push(message.name);
      this.#stored.push(message);
      if (this.#stored.length > this.#keep) this.#stored.shift();
      if (this.#isSubscribed) this.#onAir.push(message);
    }
  }

  /** The time of a stored message is over. */
  expire(index: number): void {
    if (this.#stored.length > 0) this.#stored.splice(index % this.#stored.length, 1);
  }

  /** The store loses everything. Connections stay, and what is on the air comes before anything newer. */
  flush(): void {
    this.hear(Infinity);
    this.#last = 0;
    this.#lastTag = "";
    this.#stored = [];
    this.#begin([]);
    this.#isBlind = true;
  }

  /** The store restarts from an older copy, `count` messages back; the subscription breaks. */
  rollBack(count: number): void {
    this.#setBack(count);
    this.#begin([...this.#previousEpochs, { epoch: this.#epoch, seq: this.#last }]);
  }

  /** The same, and the store does not notice. */
  setBack(count: number): void {
    this.#setBack(count);
    this.#names.get(this.#epoch)!.length = this.#last;
  }

  /** Messages on the air arrive. */
  hear(count: number): void {
    if (count > 0 && this.#onAir.length > 0) this.#isBlind = false;
    for (const { seq, envelope } of this.#onAir.splice(0, count)) this.replay.live(seq, envelope, 1);
  }

  /** A message on the air gets lost, and nobody notices. */
  drop(): void {
    // The first of an epoch shows the epoch: a channel that stays connected does not lose it.
    if (this.#onAir.length === 0 || this.#onAir[0]!.seq === 1) return;
    this.#onAir.shift();
    this.#isBlind = true;
  }

  /** The subscription breaks: what is on the air is lost, and so is what comes until it is restored. */
  lose(): void {
    this.#isSubscribed = false;
    this.#onAir = [];
  }

  restore(): void {
    if (this.#isSubscribed) return;
    this.#isSubscribed = true;
    this.replay.verify();
  }

  // -------------------------------------------------------------------------------------------------------
  // Reads

  /** The oldest read reaches the store. */
  carryOut(): void {
    const read = this.#reads.find(({ page }) => page === undefined);
    if (read) read.page = this.#since(read.after, read.limit, read.options);
  }

  /** The oldest answer reaches the replay, which acts on it. */
  async answer(): Promise<void> {
    const index = this.#reads.findIndex(({ page }) => page !== undefined);
    if (index < 0) return;
    const [read] = this.#reads.splice(index, 1);
    this.#told = read!.page!.last;
    this.readMessages += read!.page!.items.length;
    read!.answer.resolve(read!.page!);
    await settled();
  }

  /** The oldest read fails. While the client is connecting that would refuse the handshake: nothing to see here. */
  async fail(): Promise<void> {
    if (this.start === undefined) return;
    this.#reads.shift()?.answer.reject(new Error("The store is away"));
    await settled();
  }

  /** All reads come back, and those they lead to. */
  async rest(): Promise<void> {
    const allowed = this.readCount + SPARE_READS + this.#last / 32;
    while (this.#reads.length > 0) {
      assert(this.readCount <= allowed, "It reads the history for ever");
      this.carryOut();
      await this.answer();
    }
  }

  // -------------------------------------------------------------------------------------------------------
  // The client

  /**
   * Connects, in the order of the real thing.
   * @param options.wanted A position from which to resume.
   * @param options.early What happens between a new client's first read and its subscription.
   * @param options.meanwhile What happens between the subscription and the start.
   */
  async open(
    options: { wanted?: Position; early?: () => Promise<void>; meanwhile?: () => Promise<void> } = {},
  ): Promise<void> {
    const { wanted } = options;
    this.#isResume = wanted !== undefined;
    const opening = this.replay.load(wanted);
    if (!wanted) {
      await this.rest();
      const last = this.#last;
      await options.early?.();
      if (this.#last > last) this.#isBlind = true;
    }
    this.#isSubscribed = true;
    await options.meanwhile?.();
    await this.rest();
    await opening;
    this.start = this.replay.greeting();
    const at = parsePosition(this.start.pos)!;
    const { epoch, seq } = wanted && !this.start.resumed ? wanted : at;
    this.#seen = { epoch, seq };
    for (const name of this.#names.get(epoch)?.slice(0, seq) ?? []) this.#had.add(name);
    this.replay.run();
    await settled();
  }

  async makeRoom(): Promise<void> {
    this.hasRoom = true;
    this.#taken = 0;
    this.replay.resume();
    await settled();
  }

  stop(): void {
    this.replay.stop();
    this.#isStopped = true;
  }

  /** All goes well from here on: the client must come to rest, and then have everything. */
  async finish(): Promise<void> {
    this.hasRoom = true;
    this.#taken = -Infinity;
    this.restore();
    this.hear(Infinity);
    await this.rest();
    this.replay.resume();
    await this.rest();
    // Where something later has come, what is missing has shown without being asked for.
    if (!this.#isBlind) this.#assertComplete();
    this.replay.verify();
    await this.rest();
    this.#assertComplete();
  }

  #assertComplete(): void {
    this.check();
    assert(this.replay.isLive, "It is not live in the end");
    assertEquals([formatPlace(this.replay.position), this.#seen], [
      formatPlace(this.position),
      this.position,
    ]);
    const missing = this.#stored.map(({ name }) => name)
      .filter((name) => !this.#had.has(name) && !this.#capped.has(name));
    assertEquals(missing, [], "Stored, and neither delivered nor left out by the limit of a resume");
  }

  /** @throws {AssertionError} when the client was handed something wrong. */
  check(): void {
    if (this.#fault !== undefined) throw this.#fault;
  }

  /** What still happens to a client that was stopped. */
  async leave(): Promise<void> {
    this.hasRoom = true;
    this.restore();
    this.hear(Infinity);
    this.replay.resume();
    this.replay.verify();
    await this.rest();
  }

  #deliver(envelope: string, isReplay: boolean): boolean {
    const name = /"id":"(m\d+)"/.exec(envelope)?.[1] ?? envelope;
    assert(!this.#isStopped, `"${name}" was delivered after the stop`);
    if (!this.hasRoom) return false;
    assert(!this.#had.has(name), `"${name}" was delivered twice`);
    this.#seen = { ...this.#seen, seq: this.#seen.seq + 1 };
    assertEquals(
      name,
      this.#names.get(this.#seen.epoch)?.[this.#seen.seq - 1],
      "The next in order and epoch",
    );
    this.#had.add(name);
    this.log.push(name);
    if (isReplay) this.replayed.push(name);
    if (++this.#taken === this.#room) this.hasRoom = false;
    if (this.log.length === this.#stopAfter) this.stop();
    return true;
  }

  #gap(frame: GapFrame): void {
    assert(!this.#isStopped, "A gap was announced after the stop");
    assertEquals(frame.from, this.#seen.seq + 1, "A gap begins where the client stands");
    const pos = parsePosition(frame.pos)!;
    if (frame.why === "trimmed") {
      assert(frame.to >= frame.from, "A gap is not empty");
      assertEquals(frame.count, frame.to - frame.from + 1);
      assertEquals(pos, { epoch: this.#seen.epoch, seq: frame.to });
      const names = this.#names.get(pos.epoch)!.slice(frame.from - 1, frame.to);
      assertEquals(names.length, frame.count, "A gap covers only what there was");
      const covered = names.filter((name) => this.#stored.some((message) => message.name === name));
      // Only a resume may leave out what is there, at its beginning and beyond its limit.
      const isCap = this.#isResume && !this.log.some((entry) => typeof entry === "string") &&
        frame.to <= this.#told - this.#maxReplay;
      if (isCap) { for (const name of covered) this.#capped.add(name); }
      else assertEquals(covered, [], "A gap covers what is stored");
    } else {
      assert(pos.seq < frame.from, "A new epoch takes nothing from the client that it has");
    }
    this.#seen = pos;
    this.log.push(frame);
  }

  // -------------------------------------------------------------------------------------------------------

  #checked<T>(body: () => T): T | true {
    try {
      return body();
    } catch (error) {
      this.#fault ??= error;
      return true;
    }
  }

  #setBack(count: number): void {
    this.lose();
    this.#last = Math.max(0, this.#last - count);
    this.#stored = this.#stored.filter(({ seq }) => seq <= this.#last);
    this.#lastTag = this.#tags.get(this.#names.get(this.#epoch)![this.#last - 1] ?? "") ?? "";
  }

  #begin(previousEpochs: Position[]): void {
    const names = previousEpochs.length === 0 ? [] : this.#names.get(this.#epoch)!.slice(0, this.#last);
    this.#previousEpochs = previousEpochs;
    this.#epoch = this.#epochName(this.#names.size + 1);
    this.#names.set(this.#epoch, names);
  }

  /** Tags of numbers stay a few characters of their epoch, and some that no other message has. */
  #message(seq: number, name: string): Named {
    if (!this.#isTagged) return { seq, name, envelope: name };
    const tag = this.#epoch + name.slice(1).padStart(4, "0");
    this.#tags.set(name, this.#lastTag = tag);
    const message = { id: name, head: '\u0001uw1j{"t":"m",', tail: `"id":"${name}","ts":1,"data":0}` };
    return { seq, name, envelope: withSeq(message, seq, tag) };
  }

  #epochName(n: number): string {
    return this.#isTagged ? `e${String(n).padStart(3, "0")}` : `e${n}`;
  }

  #since(after: number | undefined, limit: number, { proof = false }: SinceOptions): Page {
    const { envelope = "" } = this.#stored.find(({ seq }) => proof && seq === after) ?? {};
    const place = {
      epoch: this.#epoch,
      previousEpochs: this.#previousEpochs,
      last: this.#last,
      lastTag: this.#lastTag,
      afterTag: after === this.#last ? this.#lastTag : tagIn(envelope),
    };
    const { last } = place;
    if (after === undefined) return { ...place, items: [], upTo: last };
    const items = this.#stored.filter(({ seq }) => seq > after).slice(0, limit);
    return { ...place, items, upTo: items.length < limit ? last : items.at(-1)!.seq };
  }
}

/** Lets every promise that is settled have its effect. */
export async function settled(): Promise<void> {
  for (let turns = 0; turns < 8; turns++) await null;
}
