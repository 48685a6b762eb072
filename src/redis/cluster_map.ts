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

/** One range of slots as CLUSTER SLOTS answers it: first, last, and endpoint, port and id of each node that has it. */
export type SlotsReply = readonly [number, number, ...(readonly [string | null, number, string])[]];

/**
 * Where clients are to find nodes, by id, read from what CLUSTER SLOTS answers: an address or a name, as
 * `cluster-preferred-endpoint-type` says. https://redis.io/docs/latest/commands/cluster-slots/
 * @param asked Where it was asked: a node that does not say where it is, is there.
 */
export function parseEndpoints(reply: readonly SlotsReply[], asked: Place): Map<string, Place> {
  const places = new Map<string, Place>();
  for (const [, , ...nodes] of reply) {
    for (const [endpoint, port, id] of nodes) {
      // A name that is preferred and not announced.
      if (endpoint !== "?") places.set(id, { hostname: endpoint || asked.hostname, port });
    }
  }
  return places;
}

/**
 * Reads what CLUSTER NODES answers: https://redis.io/docs/latest/commands/cluster-nodes/
 * @param asked Where it was asked: a node that does not know its own address leaves it out.
 * @param options.byName Whether the name that a node announces is taken before all, for the sake of its certificate.
 * @param options.endpoints What `parseEndpoints` has read at the same node.
 */
export function parseNodes(
  text: string,
  asked: Place,
  options: { byName: boolean; endpoints?: ReadonlyMap<string, Place> },
): ClusterNode[] {
  const nodes: ClusterNode[] = [];
  for (const line of text.split("\n")) {
    const [id, where, flagText, masterId, , , epoch, , ...slots] = line.trim().split(" ");
    if (id === undefined || epoch === undefined) continue;
    const flags = flagText!.split(",");
    if (flags.includes("noaddr") || flags.includes("handshake")) continue;
    const [, ip, port, hostname] = /^(.*):(\d+)@\d+(?:,([^,]*))?/.exec(where!) ?? [];
    if (port === undefined) continue;
    const address = ip || (flags.includes("myself") ? asked.hostname : "");
    const place = options.byName && hostname
      ? { hostname, port: Number(port) }
      : options.endpoints?.get(id) ?? { hostname: address, port: Number(port) };
    // Others may not know the address of one that has failed.
    if (place.hostname === "") continue;
    nodes.push({
      id,
      place,
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
  /** Nobody answers at its place: one that was left is as good. */
  doubt(): void;
}

export interface MapChange<T> {
  /** Keepers of which another node is the master now, or that are somewhere else. */
  readonly moved: readonly T[];
  /** Slots that another keeper has now. Those that had none before are not among them. */
  readonly slots: ReadonlySet<number>;
}

/** One keeper: the map knows it for as long as it keeps a slot, and one of its nodes follows the other. */
class Owner<T> implements Keeper {
  ids: ReadonlySet<string> = new Set();
  /** Made with the first slot. */
  made: T | undefined;
  /** Places of this master that were left for another one, and the number of the answer that repeated its place last. */
  readonly #left = new Set<string>();
  #repeated = 0;
  /** Its other nodes, and the number of the answer that said so of each last. */
  readonly #others = new Map<string, number>();

  constructor(public master: ClusterNode) {}

  /**
   * Another description of the same claim, or a newer one. Where nodes differ in the place of one master, as with two kinds
   * of endpoints, it goes to none that it has left: else its connections would go to and fro with each answer.
   * @param answer Number of the answer.
   */
  describe(master: ClusterNode, answer: number): void {
    const { id, epoch, place: before } = this.master;
    const isSameClaim = master.id === id && master.epoch === epoch;
    const isSamePlace = formatPlace(master.place) === formatPlace(before);
    if (isSameClaim && !isSamePlace && this.#left.has(formatPlace(master.place))) {
      if (answer - this.#repeated <= PATIENCE) return void (this.master = { ...master, place: before });
    }
    if (!isSameClaim) this.#left.clear();
    else if (!isSamePlace) this.#left.add(formatPlace(before));
    this.#repeated = answer;
    this.master = master;
  }

  /**
   * Takes in which nodes an answer has with this master. One that the answer says nothing of is still taken for a replica: the
   * node that was asked may not have heard of it yet.
   * @param former Id of the node that was the master before this answer.
   */
  gather(nodes: readonly ClusterNode[], former: string, answer: number): void {
    const { id: own } = this.master;
    for (const { id, masterId, ranges } of nodes) {
      // A master that has just lost its place will be a replica.
      if (masterId === own || id === former && id !== own) this.#others.set(id, answer);
      if (masterId !== undefined && masterId !== own || ranges.length > 0) this.#others.delete(id);
    }
    for (const [id, said] of this.#others) if (answer - said > PATIENCE) this.#others.delete(id);
    this.ids = new Set([own, ...this.#others.keys()]);
  }

  /** Whether an answer knows this master, or a replica in its place. */
  isKnownTo(nodes: readonly ClusterNode[]): boolean {
    const { id: own } = this.master;
    return nodes.some(({ id, ranges }) => id === own || ranges.length > 0 && this.ids.has(id));
  }

  doubt(): void {
    this.#left.clear();
  }
}

function formatPlace({ hostname, port }: Place): string {
  return `${hostname}:${port}`;
}

/** A claim that so many answers in a row do not repeat has ended, or never was; and so has a place, and a whole cluster. */
const PATIENCE = 12;

export class ClusterMap<T> {
  readonly #make: (keeper: Keeper) => T;
  readonly #owners: (Owner<T> | undefined)[] = new Array(SLOTS).fill(undefined);
  /** Of each slot: the epoch of the claim that stands, and the number of the answer that repeated it last. */
  readonly #epochs = new Float64Array(SLOTS);
  readonly #repeated = new Float64Array(SLOTS);
  #answers = 0;
  /** Answers in a row that were of another cluster. */
  #strange = 0;

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
    return this.#all().map(({ made }) => made!);
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

  /**
   * Takes in what a node said of all.
   * @returns Undefined when that node is of another cluster, or of none any more: nothing is taken in.
   */
  learn(nodes: readonly ClusterNode[]): MapChange<T> | undefined {
    const heard = new Map(nodes.map(({ id, epoch }) => [id, epoch]));
    const followed = new Map(nodes.map(({ id, masterId }) => [id, masterId]));
    const all = this.#all();
    // A node that was taken out lives on at an address that we may know: alone, with nothing, or with others, of which we
    // know few. But when for long nobody has known ours, another cluster has taken its place.
    const isAlone = all.length > 0 && nodes.every(({ ranges }) => ranges.length === 0);
    const isAnother = all.filter((owner) => owner.isKnownTo(nodes)).length < all.length / 2;
    if (isAlone || isAnother && ++this.#strange <= PATIENCE) return undefined;
    this.#strange = 0;
    this.#answers++;
    const moved: T[] = [];
    const slots = new Set<number>();
    const isKnown = ({ id }: ClusterNode) => all.some(({ master }) => master.id === id);
    // Those first who are masters still: a replica of one of them may have become a master beside it.
    const masters = nodes.filter(({ masterId, ranges }) => masterId === undefined && ranges.length > 0)
      .toSorted((one, other) => Number(isKnown(other)) - Number(isKnown(one)));
    for (const master of masters) {
      // The replica itself may be news, too, with which its former master is now.
      const owner = all.find((owner) => owner.master.id === master.id) ??
        all.find(({ ids }) => ids.has(master.id)) ??
        all.find((owner) => followed.get(owner.master.id) === master.id) ?? new Owner<T>(master);
      const { id: former, epoch, place } = owner.master;
      if (master.epoch >= epoch) {
        owner.describe(master, this.#answers);
        const isMoved = master.id !== former || formatPlace(owner.master.place) !== formatPlace(place);
        if (isMoved) moved.push(owner.made!);
        owner.gather(nodes, former, this.#answers);
      } else if (master.id !== former) {
        continue; // it says what was true before: another node has taken its place since
      }
      this.#claim(owner, master, (slot) => isAnother || this.#isOver(slot, master.epoch, heard), slots);
    }
    return { moved, slots };
  }

  #claim(
    owner: Owner<T>,
    { ranges, epoch }: ClusterNode,
    isFree: (slot: number) => boolean,
    changed: Set<number>,
  ): void {
    for (const [first, last] of ranges) {
      for (let slot = first; slot <= last; slot++) {
        const before = this.#owners[slot];
        if (before && before !== owner) {
          if (!isFree(slot)) continue;
          changed.add(slot);
        }
        this.#epochs[slot] = before === owner ? Math.max(epoch, this.#epochs[slot]!) : epoch;
        this.#repeated[slot] = this.#answers;
        owner.made ??= this.#make(owner);
        this.#owners[slot] = owner;
      }
    }
  }

  /**
   * Whether the claim that stands on a slot is over for one of another master.
   * @param heard Epochs of all nodes that the answer with the claim knows.
   */
  #isOver(slot: number, epoch: number, heard: ReadonlyMap<string, number>): boolean {
    const standing = this.#epochs[slot]!;
    // Who has not heard of a claim can't tell that it has ended, not even with a newer one: that may have been without the
    // slot, for the master that made it knew better.
    if ((heard.get(this.#owners[slot]!.master.id) ?? standing) < standing) return false;
    return epoch > standing || this.#answers - this.#repeated[slot]! > PATIENCE;
  }

  #all(): Owner<T>[] {
    return [...new Set(this.#owners)].filter((owner) => owner !== undefined);
  }
}
