/**
 * The timeline of the data in Redis: an unbroken run of writes, under a name that is kept there. As long as nothing
 * that was accepted is lost it stays the same, through restarts, failovers and new connections. When the data was set
 * back (an older copy, a replica that lagged) a new timeline begins, and with it a new epoch of every user.
 *
 * Nothing is believed of a server's identity: a process can become a copy of another and keep its run id. What is
 * looked for is the data itself. A log, a snapshot and a replica all hold what was written up to some moment, and nothing
 * after it: so where an append is, everything before it is too. Each process remembers the last append that was answered to
 * it, writes it down for the others once a second, and looks at every new connection, and once a second, whether all those
 * that it knows of are still there.
 *
 *     userwire:{userwire:timeline}        hash   name: <number>.<random>; life: of the server that had it last; waits: life
 *                                                on which somebody waits who remembers; mark: of the server's memory;
 *                                                begun: mark with which a Redis function began it
 *     userwire:{userwire:timeline}:last   hash   process → Unix ms, number, tag and channel of its last append
 *     userwire:{userwire:timeline}:mark:<mark>   string that only this server's memory has as it is
 *
 * The mark tells at once, between two looks, that other data has taken the place of that which was looked at. It is written
 * so that neither a log nor a replica gets it, and a snapshot brings it back in another encoding: one that is still as it
 * was written has been in this memory ever since. Another is looked at as another life. Each append asks for it first.
 *
 * When an append is gone from a server that was not replaced, and what the processes told each other is still there, only
 * some users' keys were put back. That begins no timeline: those users' tags show it, and more exactly. Who comes from
 * another server, where it went on alone, does begin one, however long others have been here; also when they have begun one
 * themselves, but before its last append.
 *
 * When the server's life is another than the one that was written down, a process that misses nothing waits a moment, for
 * another may miss an append that it has not written down yet. A process that has just started remembers nothing, and waits
 * for a record of those that do remember, also while they wait themselves; when there is none, nobody can vouch for the
 * data, and a new timeline begins.
 *
 * On a cluster each master has a timeline of its own, which its replicas go on with. It is kept in the highest slot of that
 * master, with the ids of its nodes, as with that slot it may come to another master; and with the slots that were there when
 * it began: a user's data that came later is as whole as it was where it came from (`lineage.ts`). There are no marks: a node
 * of a cluster takes other data only by becoming a replica, which is seen.
 *
 * A former master that hung, and wakes up, takes what lies in its sockets. What it publishes then reaches those who have
 * subscribed at the new one, by the bus that joins the nodes: with numbers that are given out there too. Only another epoch
 * tells them apart. So it begins with every failover, unless the former master says that it has handed everything over.
 */
import { base64urlOf } from "../protocol/base64.ts";
import {
  type Ask,
  common,
  formatRanges,
  type Handover,
  historyKey,
  isElsewhere,
  isIn,
  parseRanges,
  positionKey,
  type ServerInfo,
  slotOf,
  type SlotRange,
  type Watch,
} from "../redis/commands.ts";
import { Lineage, type Part } from "./lineage.ts";
import { LOOK } from "./timeline_script.ts";

/** An append that was answered. */
interface Known {
  readonly channel: string;
  readonly seq: number;
  readonly tag: string;
  /** When this process learned of it, on the clock of `performance.now()`. */
  readonly atMs: number;
}

/** What stands in the braces of its keys, where one Redis keeps everything. */
const TAG = "userwire:timeline";
/** How long a timeline is remembered while no process runs. Every counter has ended before. */
export const TIMELINE_TTL_MS = 60 * 24 * 3_600_000;
/** Counters live for a day after their last use: a younger append that is not there was lost. */
const MEMORY_MS = 23 * 3_600_000;
/** How long a process waits for others: those dial again, or look, within a second. */
const PATIENCE_MS = 1_200;
/** How long a process without memory waits for one that has it, and waits itself. */
const LONG_PATIENCE_MS = 2_500;
/** A former master that lives needs a second try at times to follow the new one, which Redis begins each second. */
const HANDOVER_MS = 4_000;
const UNKNOWN_YET = "Redis was restarted or replaced, and it is not known yet whether it kept its data";
/** Characters of a run id that name the first timeline; what was stored before there were timelines names its run. */
const SEED_LENGTH = 12;

export class Timeline implements Watch {
  readonly #me = crypto.randomUUID();
  readonly #part: Part | undefined;
  readonly #lineage: Lineage;
  /** Slots that were there when it began and have not left since, and names of those that were ended before it. */
  #slots = "";
  #began: readonly SlotRange[] = [];
  #ended = "";
  #name = "";
  /** Of the server that was looked at last. */
  #life = "";
  readonly #onNew: (() => void)[] = [];
  /** Of a cluster: id of the node that was looked at last, and the life to which it has handed everything over. */
  #node = "";
  /** What stood in the braces of the keys that were looked at last. */
  #tag = "";
  #handedOverTo = "";
  /** What was found of it at this look; undefined where nobody was asked. */
  #handover: Handover | undefined;
  /** Whether this process has looked before: then it knows what has to be there. */
  #hasMemory = false;
  #own: Known | undefined;
  #isOwnTold = true;
  /** Of the memory that was looked at last; "" for none. */
  #mark = "";
  /** Whether this server lets us make one. */
  #isMarkable = true;
  /** When the newest record of the last look was written, on Redis' clock; 0 for none. */
  #told = "0";
  readonly #others = new Map<string, { readonly record: string; readonly known: Known }>();
  /** Since when it waits for a record of others, on the clock of `performance.now()`, and on which life of Redis. */
  #waits: { readonly life: string; readonly sinceMs: number } | undefined;

  /** @param part Of a cluster; undefined for one Redis that keeps everything. */
  constructor(part?: Part, lineage = new Lineage()) {
    this.#part = part;
    this.#lineage = lineage;
  }

  /** Its name; "" before Redis was looked at. */
  get name(): string {
    return this.#name;
  }

  /** Key that is encoded as raw for as long as the data is that which was looked at; undefined where there is no mark. */
  get markKey(): string | undefined {
    return this.#mark === "" ? undefined : `userwire:{${TAG}}:mark:${this.#mark}`;
  }

  /**
   * What a script is told that meets the name of another timeline in a user's data: the names of those that were ended, with
   * commas around each. "" where every other name means that the data was set back.
   */
  elsewhere(channel: string): string {
    if (!this.#part || isIn(this.#began, slotOf(channel))) return "";
    return `,${this.#lineage.ended}`;
  }

  /**
   * What the Redis functions of a cluster are told (`function_library.ts`): its name, the key it is kept in, the slots it began
   * with and what was ended before it. Undefined before it is known.
   */
  get told(): readonly string[] | undefined {
    return this.#name === "" ? undefined : [this.#name, `userwire:{${this.#tag}}`, this.#slots, this.#ended];
  }

  /** Calls back when another timeline began. */
  onNew(listener: () => void): void {
    this.#onNew.push(listener);
  }

  /**
   * An append was answered: from now on it has to be there.
   * @returns Whether to look now, not within the second: it is the first one, and from now on there can be a mark.
   */
  appended(channel: string, seq: number, tag: string): boolean {
    const isFirst = this.#own === undefined;
    this.#own = { channel, seq, tag, atMs: performance.now() };
    this.#isOwnTold = false;
    return isFirst && this.#mark === "" && this.#isMarkable && !this.#part;
  }

  /** Looks whether all that is known of is there. */
  async look(ask: Ask, server: ServerInfo, isGreeting = true): Promise<string | undefined> {
    if (!this.#part) return await this.#look(ask, server, isGreeting, TAG, "");
    const { tag } = this.#part;
    // Where nothing is kept there is nothing to number.
    if (tag === undefined) return undefined;
    try {
      await this.#askFormer(server);
      return await this.#look(ask, server, isGreeting, tag, "");
    } catch (error) {
      if (!isElsewhere(error)) throw error;
      // The slot in which it is kept is on its way to another master: it will be kept in another one.
      return isGreeting ? UNKNOWN_YET : undefined;
    }
  }

  /**
   * The slots that it began with, without those that have left: what comes back with them was whole elsewhere. "" when none
   * has left; "none" for none.
   */
  #left(part: Part): string {
    const slots = formatRanges(common(this.#began, parseRanges(part.slots)));
    return slots === this.#slots ? "" : slots || "none";
  }

  /** Finds out whether the node that was looked at before has handed over to this one. */
  async #askFormer(server: ServerInfo): Promise<void> {
    this.#handover = undefined;
    if (!this.#isFailover(server) || this.#handedOverTo === server.life) return;
    this.#handover = await this.#part!.handover(this.#node, server);
    if (this.#handover === "done") this.#handedOverTo = server.life;
  }

  /** For how many of the times to wait it has waited, of those for others and for a former master that follows just now. */
  #patience(waitedMs: number): number {
    if (this.#handover === "underway" && waitedMs < HANDOVER_MS) return 0;
    return [PATIENCE_MS, LONG_PATIENCE_MS].filter((ms) => waitedMs >= ms).length;
  }

  #isFailover(server: ServerInfo): boolean {
    return this.#hasMemory && this.#part !== undefined && this.#node !== this.#part.node &&
      this.#life !== server.life;
  }

  /** @param whose Whose the timeline is that is kept there: "own", "other", or "" where that is to be found out. */
  async #look(
    ask: Ask,
    server: ServerInfo,
    isGreeting: boolean,
    tag: string,
    whose: string,
  ): Promise<string | undefined> {
    const nowMs = performance.now();
    const own = this.#own;
    const known = [own, ...[...this.#others.values()].map(({ known }) => known)]
      .filter((one) => one !== undefined)
      .filter(({ atMs, channel }) => nowMs - atMs < MEMORY_MS && this.#part?.keeps(channel) !== false);
    if (this.#waits?.life !== server.life) this.#waits = undefined;
    const waitedMs = this.#waits ? nowMs - this.#waits.sinceMs : 0;
    const patience = this.#patience(waitedMs);
    const keys = known.map(({ channel }) => [positionKey(channel), historyKey(channel)]);
    const part = this.#part;
    const [name, isWhole, told, mark, slots, ended, ...records] = await ask(
      LOOK,
      // On a cluster a script may name keys of one slot only.
      [`userwire:{${tag}}`, `userwire:{${tag}}:last`, ...(part ? [] : keys.flat())],
      [
        server.life,
        this.#name,
        this.#hasMemory ? randomName() : server.field("run_id")?.slice(0, SEED_LENGTH) ?? "",
        this.#hasMemory ? "1" : "0",
        String(patience),
        this.#me,
        own === undefined || this.#isOwnTold || !known.includes(own)
          ? ""
          : `${own.seq} ${own.tag} ${own.channel}`,
        String(TIMELINE_TTL_MS),
        this.#hasMemory && server.life !== this.#life ? "1" : "0",
        this.#told,
        this.#mark,
        // Where there can be none it is not tried each second: Redis notes each refusal.
        !part && (isGreeting || this.#isMarkable) ? randomName() : "",
        part ? [...part.ids].join(",") : "",
        whose,
        part?.slots ?? "",
        this.#slots,
        this.#ended,
        this.#isFailover(server) && this.#handedOverTo !== server.life ? "1" : "0",
        tag === this.#tag ? "0" : "1",
        part ? this.#left(part) : "",
        own !== undefined && known[0] === own ? String(Math.floor(nowMs - own.atMs)) : "",
        ...known.flatMap(({ seq, tag }, i) => [...keys[i]!, String(seq), tag]),
      ],
    ) as string[];
    if (name === "whose") {
      // What is kept there came with the slot from another master, unless its nodes were all replaced.
      const isOthers = isWhole!.split(",").some((id) => part!.isOthers(id));
      return await this.#look(ask, server, isGreeting, tag, isOthers ? "other" : "own");
    }
    if (name === "") {
      this.#waits ??= { life: server.life, sinceMs: nowMs };
      return UNKNOWN_YET;
    }
    this.#waits = undefined;
    if (own === this.#own) this.#isOwnTold = true;
    if (isWhole !== "1") this.#forget(own);
    const isNew = this.#hasMemory && name !== this.#name;
    this.#name = name!;
    this.#life = server.life;
    this.#node = part?.node ?? "";
    this.#tag = tag;
    this.#told = told!;
    this.#mark = mark === "none" ? "" : mark!;
    this.#slots = slots!;
    this.#began = parseRanges(slots!);
    this.#ended = ended!;
    this.#lineage.learn(this, this.#ended);
    if (isGreeting || mark === "none") this.#isMarkable = mark !== "none";
    this.#hasMemory = true;
    this.#learn(records, nowMs);
    if (isNew) { for (const listener of this.#onNew) listener(); }
    return undefined;
  }

  /** What was lost is known to be: it is not looked for again. */
  #forget(own: Known | undefined): void {
    if (this.#own === own) this.#own = undefined;
    this.#others.clear();
  }

  #learn(records: readonly string[], nowMs: number): void {
    const seen = new Set<string>();
    for (let i = 0; i < records.length; i += 2) {
      const [name, record] = [records[i]!, records[i + 1]!];
      seen.add(name);
      if (this.#others.get(name)?.record === record) continue;
      const [, seq, tag, channel] = /^\d+ (\d+) (\S*) (.*)$/s.exec(record) ?? [];
      if (channel === undefined) continue;
      this.#others.set(name, { record, known: { channel, seq: Number(seq), tag: tag!, atMs: nowMs } });
    }
    for (const name of this.#others.keys()) if (!seen.has(name)) this.#others.delete(name);
  }
}

function randomName(): string {
  return base64urlOf(crypto.getRandomValues(new Uint8Array(6)));
}
