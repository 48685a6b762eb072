/**
 * The Redis that this process is on, as shards: one that keeps everything, or one for each master of a cluster. Which of
 * both it is, is found out when a server answers for the first time.
 */
import { isMisrouted, RoutedBroker } from "../broker/routed.ts";
import type { FunctionsFound } from "../history/function_loader.ts";
import { Lineage } from "../history/lineage.ts";
import { RoutedHistory } from "../history/routed.ts";
import { Cluster } from "../redis/cluster.ts";
import type { ClusterMaster } from "../redis/cluster_master.ts";
import {
  type Examination,
  type FirstAttempt,
  loadClientLibrary,
  type Script,
  type Scripts,
} from "../redis/commands.ts";
import type { Topology } from "../redis/topology.ts";
import type { UrlSource } from "../redis/url_source.ts";
import { Shard, type ShardOptions } from "./shard.ts";

/** How long a shard that keeps nothing any more stays open, for what was asked of it before. */
const LINGER_MS = 5_000;

/** The Redis functions of one server. */
export interface FunctionsAt extends FunctionsFound, At {}

/** What one server says of itself. */
export interface ExaminedAt extends Examination, At {}

interface At {
  /** Where the master of a cluster is, as <host>:<port>; undefined where one Redis keeps everything. */
  readonly place: string | undefined;
}

export class Shards implements Scripts {
  readonly broker: RoutedBroker;
  readonly history: RoutedHistory;
  readonly #options: ShardOptions;
  readonly #source: UrlSource;
  readonly #topology: Topology | undefined;
  readonly #lineage = new Lineage();
  readonly #scripts: Script[] = [];
  /** The one that keeps everything; undefined on a cluster. */
  #single: Shard | undefined;
  #cluster: Cluster | undefined;
  readonly #shards = new Map<ClusterMaster, Shard>();
  readonly #lingering = new Map<Shard, ReturnType<typeof setTimeout>>();
  readonly #closing = new Set<Promise<void>>();

  /** @param topology Of one Redis that keeps everything; undefined where the URL names several nodes of a cluster. */
  constructor(source: UrlSource, topology: Topology | undefined, options: ShardOptions) {
    this.#source = source;
    this.#topology = topology;
    this.#options = options;
    const isOne = () => this.isOne;
    const count = () => this.#shards.size;
    this.broker = new RoutedBroker(options.subscriptions === "shared" ? "nodes" : "sockets", {
      of: (channel) => this.#of(channel).broker,
      all: () => this.#all().map(({ broker }) => broker),
      reason: () => this.#cluster?.reason,
      get canMove() {
        return !isOne();
      },
      look: () => this.#look(),
    }, options.log);
    this.history = new RoutedHistory(options.limits, {
      of: (name) => this.#of(name).history,
      get isOne() {
        return isOne();
      },
      get count() {
        return count();
      },
      there: (name, work) => this.#there(name, ({ history }) => work(history)),
    });
    if (topology === undefined) {
      this.#openCluster();
      return;
    }
    this.#single = this.#open(topology);
    // The other way in which it is found to be one; where Sentinels lead there it stays a fault.
    if (!source.url.sentinel) this.#single.redis.onCluster(() => this.#becomeCluster());
  }

  /** What `firstAttempt` of the engine says. */
  async firstAttempt(withinMs: number): Promise<FirstAttempt> {
    // Nothing is attempted before, and on a busy machine that is a second or more.
    await loadClientLibrary().catch(() => {});
    const endMs = performance.now() + withinMs;
    if (this.#single) {
      const attempt = await this.#single.firstAttempt(withinMs);
      if (!this.#cluster) return attempt;
    }
    const found = await this.#cluster!.firstAttempt(endMs - performance.now());
    if (found.outcome !== "ready") return found;
    const attempts = await Promise.all(
      this.#all().map((shard) => shard.firstAttempt(endMs - performance.now())),
    );
    const by = (outcome: FirstAttempt["outcome"]) => attempts.find((attempt) => attempt.outcome === outcome);
    // The rights of a cluster's nodes are each node's own: one that was just added may have none yet.
    return by("ready") ?? by("refused") ?? attempts[0]!;
  }

  /** Why nobody can be served, as a sentence without a full stop; undefined when some can. */
  unready(): string | undefined {
    let reason = this.#cluster?.reason;
    for (const shard of this.#all()) {
      const its = shard.unready();
      if (its === undefined) return undefined;
      reason ??= its;
    }
    return reason;
  }

  /**
   * What is wrong with parts of a cluster, while others can be served, or with who says where Redis is: sentences without a
   * full stop.
   */
  faults(): string[] {
    if (!this.#cluster) return this.#topology?.faults() ?? [];
    const shards = this.#all();
    const reasons = shards.flatMap((shard) => shard.unready() ?? []);
    const { unkept } = this.#cluster;
    return [
      ...(reasons.length > 0 && reasons.length < shards.length
        ? [`${reasons.length} of ${shards.length} masters of the Redis cluster can't be used: ${reasons[0]}`]
        : []),
      ...(unkept > 0 ? [`${unkept} of 16384 slots of the Redis cluster have no master`] : []),
    ];
  }

  /** Why no command can be sent to any; undefined when it can. */
  get reason(): string | undefined {
    const reasons = this.#all().map(({ redis }) => redis.availability.reason);
    return reasons.includes(undefined) ? undefined : reasons[0] ?? this.#cluster?.reason;
  }

  get reconnects(): number {
    return this.#all().reduce((sum, { redis }) => sum + redis.availability.reconnects, 0);
  }

  /** What Redis is warned of: sentences without a full stop. @throws {BrokerUnavailableError} */
  async warnings(): Promise<string[]> {
    return [...new Set((await Promise.all(this.#usable().map(({ redis }) => redis.warnings()))).flat())];
  }

  /** What each says of itself. @throws {BrokerUnavailableError} */
  examine(): Promise<ExaminedAt[]> {
    const usable = this.#places().filter(([, { redis }]) => redis.availability.reason === undefined);
    return Promise.all(usable.map(async ([place, { redis }]) => ({ place, ...await redis.examine() })));
  }

  functions(): FunctionsAt[] {
    return this.#places().flatMap(([place, { functions }]) =>
      functions?.found ? [{ place, ...functions.found }] : []
    );
  }

  /** Each with the place of its master; undefined where one Redis keeps everything. */
  #places(): [string | undefined, Shard][] {
    if (this.#single) return [[undefined, this.#single]];
    return [...this.#shards].map(([{ place }, shard]) => [place, shard]);
  }

  #usable(): Shard[] {
    return this.#all().filter(({ redis }) => redis.availability.reason === undefined);
  }

  prepare(...scripts: Script[]): void {
    this.#scripts.push(...scripts);
    for (const { redis } of this.#all()) redis.prepare(...scripts);
  }

  evaluate(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    if (this.#single) return this.#single.redis.evaluate(script, keys, args);
    return this.#there(keys[0]!, ({ redis }) => redis.evaluate(script, keys, args));
  }

  /** Whether keys of several slots may be named together. */
  get isOne(): boolean {
    return this.#single !== undefined;
  }

  lifeAt(key: string): string {
    try {
      return this.#of(key).redis.lifeAt();
    } catch {
      return "";
    }
  }

  reload(): void {
    this.#source.reload();
  }

  async close(): Promise<void> {
    await this.broker.close();
    this.#cluster?.close();
    for (const timer of this.#lingering.values()) clearTimeout(timer);
    const shards = [...this.#all(), ...this.#lingering.keys()];
    await Promise.all([...shards.map((shard) => shard.close()), ...this.#closing]);
    this.#topology?.close();
  }

  #all(): Shard[] {
    return this.#single ? [this.#single] : [...this.#shards.values()];
  }

  /** @throws {BrokerUnavailableError} */
  #of(name: string): Shard {
    return this.#single ?? this.#shards.get(this.#cluster!.of(name))!;
  }

  async #look(): Promise<void> {
    await this.#cluster?.look();
  }

  async #there<T>(name: string, work: (shard: Shard) => Promise<T>): Promise<T> {
    try {
      return await work(this.#of(name));
    } catch (error) {
      if (!this.#cluster || !isMisrouted(error)) throw error;
      await this.#cluster.look();
      return await work(this.#of(name));
    }
  }

  #open(topology: Topology, part?: ClusterMaster): Shard {
    const shard = new Shard(topology, this.#options, part, this.#lineage);
    shard.redis.prepare(...this.#scripts);
    shard.history.onSetBack(() => this.history.setBack());
    return shard;
  }

  #becomeCluster(): void {
    const single = this.#single;
    if (!single) return;
    this.#single = undefined;
    this.#options.log?.info("redis cluster found");
    this.#openCluster();
    this.#end(single);
  }

  #openCluster(): void {
    this.#cluster = new Cluster(this.#source, {
      log: this.#options.log,
      onMaster: (master) => this.#shards.set(master, this.#open(master, master)),
      onMoved: (slots) => this.broker.moved(slots),
      onGone: (master) => {
        const shard = this.#shards.get(master)!;
        this.#shards.delete(master);
        this.#lingering.set(
          shard,
          setTimeout(() => {
            this.#lingering.delete(shard);
            this.#end(shard);
          }, LINGER_MS),
        );
      },
    });
  }

  #end(shard: Shard): void {
    const closing = shard.close().finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }
}
