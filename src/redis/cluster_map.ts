/**
 * Which master of a cluster keeps which slots, put together from what its nodes say. Pure.
 *
 * A node that was cut off, or has not heard of a change yet, says what was true before. Each claim on a slot has the epoch
 * of its master, and the newer claim is the true one: so an answer changes only what it knows better.
 */
import type { Place } from "./address.ts";
import { parseRanges, type SlotRange, SLOTS } from "./slots.ts";

/** A node as another one, or it itself, describes it. */
export interface ClusterNode {
  readonly id: string;
  readonly place: Place;
  /** Id of its master; undefined for a master. */
  readonly masterId: string | undefined;
  /** Of its configuration: a master that takes over slots has a higher one than all before. */
  readonly epoch: number;
  readonly ranges: readonly SlotRange[];
}

/**
 * Reads what CLUSTER NODES answers: https://redis.io/docs/latest/commands/cluster-nodes/
 * @param asked Where it was asked: a node that does not know its own address leaves it out.
 * @param byName Whether the name that a node announces is taken, for the sake of its certificate, and not its address.
 */
export function parseNodes(text: string, asked: Place, byName: boolean): ClusterNode[] {
  const nodes: ClusterNode[] = [];
  for (const line of text.split("\n")) {
    const [id, address, flagText, masterId, , , epoch, , ...slots] = line.trim().split(" ");
    if (id === undefined || epoch === undefined) continue;
    const flags = flagText!.split(",");
    if (flags.includes("noaddr") || flags.includes("handshake")) continue;
    const [, ip, port, hostname] = /^(.*):(\d+)@\d+(?:,([^,]*))?/.exec(address!) ?? [];
    if (port === undefined) continue;
    const host = (byName && hostname) || ip || asked.hostname;
    nodes.push({
      id,
      place: { hostname: host, port: Number(port) },
      masterId: flags.includes("master") ? undefined : masterId,
      epoch: Number(epoch),
      // In brackets stand slots on their way: they are where they come from until the end.
      ranges: slots.filter((slot) => !slot.startsWith("[")).flatMap(parseRanges),
    });
  }
  return nodes;
}

/** What is known of one master and its replicas, which take its place one after the other. */
export interface Keeper {
  /** Now. */
  readonly master: ClusterNode;
  /** Ids of the master and its replicas, as far as they are known. */
  readonly ids: ReadonlySet<string>;
}

export interface MapChange<T> {
  /** Keepers of which another node is the master now, or that are somewhere else. */
  readonly moved: readonly T[];
  /** Slots that another keeper has now. Those that had none before are not among them. */
  readonly slots: ReadonlySet<number>;
}

/** One keeper: the map knows it for as long as one of its nodes follows the other. */
class Entry implements Keeper {
  ids: ReadonlySet<string> = new Set();
  constructor(public master: ClusterNode) {}
}

interface Owner<T> {
  readonly entry: Entry;
  readonly made: T;
}

export class ClusterMap<T> {
  readonly #make: (keeper: Keeper) => T;
  #entries: Owner<T>[] = [];
  readonly #owners: (Owner<T> | undefined)[] = new Array(SLOTS).fill(undefined);
  readonly #epochs = new Float64Array(SLOTS);

  /** @param make Makes what stands for a keeper, once for each. */
  constructor(make: (keeper: Keeper) => T) {
    this.#make = make;
  }

  /** Who keeps a slot; undefined when nobody is known to. */
  of(slot: number): T | undefined {
    return this.#owners[slot]?.made;
  }

  /** All who keep a slot at least. */
  keepers(): T[] {
    return [...new Set(this.#owners)].flatMap((owner) => owner ? [owner.made] : []);
  }

  /** How many slots nobody is known to keep. */
  get unkept(): number {
    return this.#owners.reduce((count, owner) => owner ? count : count + 1, 0);
  }

  /** Slots of one keeper. */
  rangesOf(made: T): SlotRange[] {
    const ranges: SlotRange[] = [];
    let first = -1;
    for (let slot = 0; slot <= SLOTS; slot++) {
      const isOwn = slot < SLOTS && this.#owners[slot]?.made === made;
      if (isOwn && first < 0) first = slot;
      if (isOwn || first < 0) continue;
      ranges.push([first, slot - 1]);
      first = -1;
    }
    return ranges;
  }

  /** Takes in what a node said of all. */
  learn(nodes: readonly ClusterNode[]): MapChange<T> {
    const known = new Set(nodes.map(({ id }) => id));
    const moved: T[] = [];
    const slots = new Set<number>();
    for (const master of nodes) {
      if (master.masterId !== undefined || master.ranges.length === 0) continue;
      let owner = this.#entries.find(({ entry }) => entry.ids.has(master.id));
      if (!owner) {
        const entry = new Entry(master);
        entry.ids = new Set([master.id]);
        owner = { entry, made: this.#make(entry) };
        this.#entries.push(owner);
      }
      const { entry } = owner;
      const isNewer = master.epoch >= entry.master.epoch;
      // It says what was true before: another node has taken its place since.
      if (master.id !== entry.master.id && !isNewer && known.has(entry.master.id)) continue;
      const { hostname, port } = entry.master.place;
      const isMoved = master.id !== entry.master.id || hostname !== master.place.hostname ||
        port !== master.place.port;
      if (isMoved) moved.push(owner.made);
      const former = entry.master.id;
      if (isNewer || isMoved) entry.master = master;
      const replicas = nodes.filter(({ masterId }) => masterId === master.id).map(({ id }) => id);
      // One that has just lost its place will be a replica.
      const isFormerFree = former !== master.id &&
        nodes.some(({ id, ranges }) => id === former && ranges.length === 0);
      entry.ids = new Set([master.id, ...replicas, ...(isFormerFree ? [former] : [])]);
      this.#claim(owner, master, known, slots);
    }
    this.#entries = this.#entries.filter((owner) => this.#owners.includes(owner));
    return { moved, slots };
  }

  #claim(
    owner: Owner<T>,
    { ranges, epoch }: ClusterNode,
    known: ReadonlySet<string>,
    changed: Set<number>,
  ): void {
    for (const [first, last] of ranges) {
      for (let slot = first; slot <= last; slot++) {
        const before = this.#owners[slot];
        if (before === owner) {
          if (epoch > this.#epochs[slot]!) this.#epochs[slot] = epoch;
          continue;
        }
        // An owner that nobody knows any more has no claim.
        if (before && epoch <= this.#epochs[slot]! && known.has(before.entry.master.id)) continue;
        this.#owners[slot] = owner;
        this.#epochs[slot] = epoch;
        if (before) changed.add(slot);
      }
    }
  }
}
