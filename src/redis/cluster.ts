/**
 * A Redis cluster: which master keeps what, and where that master is. Some of its nodes are asked once a second, and at
 * once when something does not answer or does not have what it should have. Neither messages nor broken connections would
 * do: a master that hangs says nothing, and one that wakes up takes itself for the master for a while.
 *
 * To those who speak to one master it is one topology for each, which goes over from a master to the replica that takes its
 * place: what is asked, subscribed and remembered there goes on.
 */
import { sleep } from "../async/sleep.ts";
import type { Log } from "../log/log.ts";
import { WarnOnce } from "../log/warn_once.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Place, RedisAddress } from "./address.ts";
import type { FirstAttempt } from "./availability.ts";
import { isRefusal } from "./client_library.ts";
import { ClusterMap, type ClusterNode, parseEndpoints, parseNodes, type SlotsReply } from "./cluster_map.ts";
import { ClusterMaster, type MastersCluster } from "./cluster_master.ts";
import { isReply, logMessage, publicMessage } from "./error_text.ts";
import { Link } from "./link.ts";
import { formatRanges, slotOf, SLOTS } from "./slots.ts";
import type { UrlSource } from "./url_source.ts";

export interface ClusterOptions {
  readonly log?: Log | undefined;
  /** A master that has not been met before. Called before anything is located there. */
  onMaster(master: ClusterMaster): void;
  /** These slots are kept elsewhere than before. */
  onMoved(slots: ReadonlySet<number>): void;
  /** Of a master with its replicas nothing is left: all it kept is elsewhere. */
  onGone(master: ClusterMaster): void;
}

const LOOK_MS = 1_000;
/** From one look to the next one at least, however many ask for it. */
const SOONEST_MS = 50;
/** How long the others are waited for, before what has come is taken in. */
const ANSWER_MS = 500;
/** Nodes that are asked at one time. */
const ASKED = 3;

const UNREACHABLE = "Redis is not available: none of its cluster's nodes can be reached";
const STRANGE =
  "It does not know the masters that the others know: if it was taken out, take it out of REDIS_URL, too; if " +
  "it has lost its nodes.conf, let it join again";
const UNKEPT = "Their users are refused until they have a master: redis-cli --cluster check says which";

export class Cluster implements MastersCluster {
  readonly #source: UrlSource;
  readonly #options: ClusterOptions;
  readonly #warnings: WarnOnce;
  readonly #map = new ClusterMap<ClusterMaster>((keeper) => {
    const master = new ClusterMaster(keeper, this);
    this.#options.onMaster(master);
    return master;
  });
  readonly #first = Promise.withResolvers<FirstAttempt>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #looking: Promise<void> | undefined;
  #lookedAtMs = -Infinity;
  /** As the last answer has them. */
  #nodes: readonly ClusterNode[] = [];
  #links = new Map<string, Link>();
  #next = 0;
  #masters: readonly ClusterMaster[] = [];
  #isMapped = false;
  #refusal: FirstAttempt | undefined;
  #reason = UNREACHABLE;
  readonly #closing = new AbortController();
  #isClosed = false;

  /** @param source Whose URL names one node at least. */
  constructor(source: UrlSource, options: ClusterOptions) {
    this.#source = source;
    this.#options = options;
    this.#warnings = new WarnOnce(options.log);
    source.onChange(() => this.#changed());
    void this.look();
  }

  /** Those that keep something. */
  get masters(): readonly ClusterMaster[] {
    return this.#masters;
  }

  /** Who keeps a key or a channel. @throws {BrokerUnavailableError} when nobody is known to. */
  of(name: string): ClusterMaster {
    const master = this.keeperOf(name);
    if (master) return master;
    throw new BrokerUnavailableError(
      this.#isMapped ? "Redis' cluster has no master that keeps this user's slot" : this.#reason,
    );
  }

  /** The same; undefined when nobody is known to. */
  keeperOf(name: string): ClusterMaster | undefined {
    return this.#map.of(slotOf(name));
  }

  /** Slots that nobody keeps; 0 before the first answer. */
  get unkept(): number {
    return this.#isMapped ? this.#map.unkept : 0;
  }

  /** Why nothing is known of the cluster, as a sentence without a full stop; undefined when something is. */
  get reason(): string | undefined {
    return this.#isMapped ? undefined : this.#reason;
  }

  /** How the first attempt to ask a node ended; "ready" when one has answered. */
  async firstAttempt(withinMs: number): Promise<FirstAttempt> {
    await sleep(withinMs, this.#first.promise);
    this.#first.resolve({ outcome: "unreachable", reason: this.#reason });
    return await this.#first.promise;
  }

  /** Asks now. Resolves when what came was taken in. Never rejects. */
  look(): Promise<void> {
    return this.#looking ??= this.#lookSoon().finally(() => this.#looking = undefined);
  }

  /** The address of a master: who logs in there stands in the URL. */
  addressOf({ hostname, port }: Place): RedisAddress {
    const { seeds: _, ...login } = this.#source.url;
    return { ...login, hostname, port };
  }

  /** Aborted when it is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Where a node is; undefined when it is not known any more. */
  placeOf(id: string): Place | undefined {
    return this.#nodes.find((node) => node.id === id)?.place;
  }

  rangesOf(master: ClusterMaster): string {
    return formatRanges(this.#map.rangesOf(master));
  }

  loginRefused(): void {
    this.#source.loginRefused();
  }

  reload(): void {
    this.#source.reload();
  }

  close(): void {
    this.#isClosed = true;
    this.#closing.abort();
    clearTimeout(this.#timer);
    for (const link of this.#links.values()) link.close();
    this.#first.resolve({ outcome: "unreachable", reason: this.#reason });
  }

  async #lookSoon(): Promise<void> {
    clearTimeout(this.#timer);
    const waitMs = this.#lookedAtMs + SOONEST_MS - performance.now();
    if (waitMs > 0) await sleep(waitMs, this.closing);
    if (this.#isClosed) return;
    this.#lookedAtMs = performance.now();
    await this.#ask();
    if (!this.#isClosed) this.#timer = setTimeout(() => void this.look(), LOOK_MS);
  }

  /** Asks some nodes, and others the next time in place of those that did not answer. */
  async #ask(): Promise<void> {
    this.#fill();
    const asked = [...this.#links];
    const useless = new Set(asked.map(([key]) => key));
    let before: Promise<void> = Promise.resolve();
    const ask = async (key: string, link: Link, before: Promise<void>) => {
      try {
        const replies = await link.ask<[string, SlotsReply[]]>(["CLUSTER", "NODES"], ["CLUSTER", "SLOTS"]);
        useless.delete(key);
        // Seeds may be of two clusters: which of them is ours is the first one's to say, in every process.
        if (!this.#isMapped) await sleep(ANSWER_MS, before, this.closing);
        if (this.#isClosed || this.#links.get(key) !== link) return;
        if (!this.#learn(replies, link)) useless.add(key);
      } catch (error) {
        if (!link.isClosed) this.#failed(error, link);
      }
    };
    const asking = asked.map(([key, link]) => before = ask(key, link, before));
    await sleep(ANSWER_MS, Promise.all(asking), this.closing);
    for (const key of useless) {
      this.#links.get(key)?.close();
      this.#links.delete(key);
    }
    // Unless another one has answered.
    if (this.#refusal) this.#first.resolve(this.#refusal);
  }

  /** Sees to it that there are as many to be asked as can be. */
  #fill(): void {
    const { url } = this.#source;
    const seeds: readonly Place[] = url.seeds ?? [url];
    const all = [...placesOf(this.#nodes), ...seeds];
    for (let tried = 0; tried < all.length && this.#links.size < ASKED; tried++) {
      const { hostname, port } = all[this.#next++ % all.length]!;
      const key = `${hostname}:${port}`;
      if (!this.#links.has(key)) this.#links.set(key, new Link(this.addressOf({ hostname, port })));
    }
  }

  /** @returns Whether the node that was asked is of our cluster. */
  #learn([text, slots]: [string, SlotsReply[]], { address, place }: Link): boolean {
    const endpoints = parseEndpoints(slots, address);
    const nodes = parseNodes(text, address, { byName: address.transport === "tls", endpoints });
    const before = this.#masters;
    const change = this.#map.learn(nodes);
    if (!change) {
      this.#warnings.warn("cluster node is of another cluster", STRANGE, place);
      return false;
    }
    this.#nodes = nodes;
    this.#masters = this.#map.keepers();
    if (this.#masters.length === 0) {
      this.#reason = "Redis' cluster has no slots yet: create it with redis-cli --cluster create";
      return true;
    }
    const { moved, slots: movedSlots } = change;
    this.#isMapped = true;
    this.#first.resolve({ outcome: "ready" });
    for (const master of moved) master.moved();
    if (movedSlots.size > 0) {
      this.#options.log?.info("redis slots moved", { count: movedSlots.size });
      this.#options.onMoved(movedSlots);
    }
    const { unkept } = this.#map;
    if (unkept > 0) this.#warnings.warn("slots without a master", UNKEPT, `${unkept} of ${SLOTS}`);
    for (const master of before) if (!this.#masters.includes(master)) this.#options.onGone(master);
    return true;
  }

  #failed(error: unknown, link: Link): void {
    const isRefused = isRefusal(error);
    const reason = publicMessage(error);
    if (isRefused) this.loginRefused();
    const detail = logMessage(messageOf(error));
    this.#warnings.warn("cluster node does not answer", reason, `${link.place}: ${detail}`);
    if (this.#isMapped) return;
    this.#reason = isReply(error) ? reason : UNREACHABLE;
    const remedy = "correct the user and password in it";
    if (isRefused) this.#refusal = { outcome: "refused", reason, detail, remedy };
  }

  /** The file with the URL holds another one. */
  #changed(): void {
    for (const link of this.#links.values()) link.close();
    this.#links.clear();
    this.#nodes = [];
    void this.look();
  }
}

/** Masters first: they are asked first. */
function placesOf(nodes: readonly ClusterNode[]): Place[] {
  return [...nodes].sort((one, other) =>
    Number(one.masterId !== undefined) - Number(other.masterId !== undefined)
  )
    .map(({ place }) => place);
}
