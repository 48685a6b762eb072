/** One master of a cluster with its replicas: the topology of all that it keeps. */
import { sleep } from "../async/sleep.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Place, RedisAddress } from "./address.ts";
import type { Keeper } from "./cluster_map.ts";
import { Link } from "./link.ts";
import { SHARDED } from "./pubsub_words.ts";
import { readInfo, type ServerInfo } from "./server_info.ts";
import { nameIn } from "./slots.ts";
import type { Topology } from "./topology.ts";

/** How long a former master is waited for. */
const ANSWER_MS = 500;

/** What a master needs of the cluster that it belongs to. */
export interface MastersCluster {
  /** Those that keep something. */
  readonly masters: readonly ClusterMaster[];
  /** Aborted when it is closed. */
  readonly closing: AbortSignal;
  /** Who keeps a key or a channel; undefined when nobody is known to. */
  keeperOf(name: string): ClusterMaster | undefined;
  /** The slots of one, as `formatRanges` writes them. */
  rangesOf(master: ClusterMaster): string;
  addressOf(place: Place): RedisAddress;
  /** Where a node is; undefined when it is not known any more. */
  placeOf(id: string): Place | undefined;
  /** Asks anew who keeps what. */
  look(): Promise<void>;
  loginRefused(): void;
  reload(): void;
}

/**
 * What is known of a former master: it gave all to the new one; it lives, and has not heard of that or begins to follow it; or
 * neither, as it does not answer, or had to copy all anew.
 */
export type Handover = "done" | "underway" | "unproven";

export class ClusterMaster implements Topology {
  readonly words = SHARDED;
  readonly #keeper: Keeper;
  readonly #cluster: MastersCluster;
  readonly #listeners: ((reason: string) => void)[] = [];
  #tag: { readonly slot: number; readonly text: string } | undefined;

  constructor(keeper: Keeper, cluster: MastersCluster) {
    this.#keeper = keeper;
    this.#cluster = cluster;
  }

  /** Where the master is, for the log. */
  get place(): string {
    const { hostname, port } = this.#keeper.master.place;
    return `${hostname}:${port}`;
  }

  /** Ids of its nodes. */
  get ids(): ReadonlySet<string> {
    return this.#keeper.ids;
  }

  /** Id of the node that is the master now. */
  get node(): string {
    return this.#keeper.master.id;
  }

  /**
   * Whether a former master has handed everything over to the one that is here now, and took nothing after that. One that
   * hung did not: when it wakes up it takes what lies in its sockets, as if it still were the master. A former master that
   * follows the new one without a whole new copy had nothing that the new one has not; while it has not come to that, it can't
   * be said yet.
   * @param former Id of its node.
   * @param server The new one.
   */
  async handover(former: string, server: ServerInfo): Promise<Handover> {
    const place = this.#cluster.placeOf(former);
    if (place === undefined || server.promotion === "") return "unproven";
    const link = new Link(this.#cluster.addressOf(place));
    let info: ServerInfo | undefined;
    const asking = link.ask<[string]>(["INFO", "replication"])
      .then(([text]) => info = readInfo(text), () => {});
    await sleep(ANSWER_MS, asking, this.#cluster.closing);
    link.close();
    if (info === undefined) return "unproven";
    if (info.role !== "slave") return "underway";
    if (info.promotion === server.promotion) return "done";
    return info.field("master_link_status") === "down" ? "underway" : "unproven";
  }

  /** The slots it keeps now, as `formatRanges` writes them. */
  get slots(): string {
    return this.#cluster.rangesOf(this);
  }

  /** Whether it keeps a key or channel now. */
  keeps(name: string): boolean {
    return this.#cluster.keeperOf(name) === this;
  }

  /** Whether a node is one of another master's, or is another one. */
  isOthers(id: string): boolean {
    return this.#cluster.masters.some((master) => master !== this && master.ids.has(id));
  }

  /**
   * What stands in the braces of a key that it keeps: the same in each process that knows the same of the cluster.
   * Undefined when it keeps nothing.
   */
  get tag(): string | undefined {
    const slot = Number(/\d+$/.exec(this.slots)?.[0] ?? -1);
    if (slot < 0) return undefined;
    // Slots are moved from the lowest on: it is the highest that stays.
    if (this.#tag?.slot !== slot) this.#tag = { slot, text: nameIn(slot, "userwire:timeline:") };
    return this.#tag.text;
  }

  locate(name?: string): RedisAddress {
    if (name !== undefined && !this.keeps(name)) {
      throw new BrokerUnavailableError("Redis keeps this user's data on another master than before");
    }
    return this.#cluster.addressOf(this.#keeper.master.place);
  }

  onChange(listener: (reason: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Another node has taken over, or the master has another address. */
  moved(): void {
    for (const listener of this.#listeners) listener("Redis has another master than before");
  }

  /** It is the cluster that is asked. */
  faults(): string[] {
    return [];
  }

  doubt(): void {
    this.#keeper.doubt();
    void this.#cluster.look();
  }

  /** A node that comes back takes no command before it has heard from the others: `CLUSTER_WRITABLE_DELAY` of Redis. */
  async confirm(): Promise<void> {}

  loginRefused(): void {
    this.#cluster.loginRefused();
  }

  reload(): void {
    this.#cluster.reload();
  }

  /** It is the cluster that is closed. */
  close(): void {}
}
