/**
 * The sessions of this process: who is here, of which user and from which address, and how many more there may be. What
 * they do is not its business.
 *
 * Sockets whose peer never answers our close can't be ended in Deno; they stay here as *zombies*, counted and holding
 * nothing but themselves, until the kernel gives them up.
 */
import { Chain, type Linked } from "../async/chain.ts";
import { inSlices } from "../async/slices.ts";
import type { CloseReason } from "../protocol/close_codes.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { CloseOptions } from "./transport.ts";

/** What the registry keeps: anything that holds a client's transport. */
export interface Member extends Linked<Member> {
  /** Whose it is, when that is known. */
  readonly username?: string;
  /** Id of the connection, once it may have one. */
  readonly id?: string;
  /** Where its client is, while its socket is there; the registry's to set. */
  addressKey: string | undefined;
  /** Takes a frame of its client, however that came. */
  frame?(data: string): void;
  /** Ends it; idempotent. */
  close(reason: CloseReason, options?: CloseOptions): void;
  /** Called once a second. @param isLate The process is short of time: a peer's silence says nothing. */
  tick(isLate: boolean): void;
  /** Its position may be wrong: compares it with the history. */
  verify?(): void;
  /** There are broadcasts that it may not have had. */
  hear?(): void;
}

export interface RegistryOptions {
  /** Sockets at one time, in this process. */
  maxConnections: number;
  /** A client of that address floods. */
  onFlood(addressKey: string): void;
  /** Whether one did, not long ago. */
  hasFlooded(addressKey: string): boolean;
}

export class Registry {
  readonly #options: RegistryOptions;
  /** Drives those that are not closing. */
  readonly heartbeat: Heartbeat<Member> = new Heartbeat();
  readonly #zombies = new Chain<Member>();
  /** Those that are not closing, oldest first. */
  readonly #byUser = new Map<string, Member[]>();
  /** How many sockets each address has. */
  readonly #byAddress = new Map<string, number>();
  readonly #goneListeners = new Set<() => void>();
  #lost = 0;

  constructor(options: RegistryOptions) {
    this.#options = options;
  }

  /** Sessions that are not closing. */
  get size(): number {
    return this.heartbeat.members.size;
  }

  /** Sockets that were asked to close and have not yet. */
  get closing(): number {
    return this.#zombies.size;
  }

  /** Sockets whose client left while they were being opened: they hold a descriptor, for good. */
  get lost(): number {
    return this.#lost;
  }

  /** Whether the process holds as many sockets as it may; closing and lost ones count, they hold memory too. */
  get isFull(): boolean {
    return this.size + this.#zombies.size + this.#lost >= this.#options.maxConnections;
  }

  /** Sessions that are not closing. */
  live(): Member[] {
    return [...this.heartbeat.members];
  }

  /** Those that are closing, too. */
  all(): Member[] {
    return [...this.heartbeat.members, ...this.#zombies];
  }

  /** Whether its socket is still there. */
  has(member: Member): boolean {
    return member.addressKey !== undefined;
  }

  /** Sessions of a user in this process that are not closing, oldest first. */
  ofUser(username: string): readonly Member[] {
    return [...this.#byUser.get(username) ?? []];
  }

  /** Users with sessions in this process that are not closing. */
  users(): Iterable<string> {
    return this.#byUser.keys();
  }

  /** The session of a connection of a user. */
  find(username: string, id: string): Member | undefined {
    for (const member of this.#byUser.get(username) ?? []) if (member.id === id) return member;
    return undefined;
  }

  /** How many those are. */
  countOf(username: string): number {
    return this.#byUser.get(username)?.length ?? 0;
  }

  /** Sockets of an address; closing and lost ones count. */
  countAt(addressKey: string): number {
    return this.#byAddress.get(addressKey) ?? 0;
  }

  /** @param addressKey Where its client is. */
  join(member: Member, addressKey: string): void {
    member.addressKey = addressKey;
    this.#byAddress.set(addressKey, this.countAt(addressKey) + 1);
    const { username } = member;
    if (username !== undefined) {
      const members = this.#byUser.get(username);
      if (members) members.push(member);
      else this.#byUser.set(username, [member]);
    }
    this.heartbeat.join(member);
  }

  /** It has ended: it counts for its user no longer. Called once. */
  onEnd(member: Member): void {
    if (this.heartbeat.leave(member)) this.#zombies.add(member);
    const { username } = member;
    const members = username === undefined ? undefined : this.#byUser.get(username);
    const at = members?.indexOf(member) ?? -1;
    if (at >= 0) members!.splice(at, 1);
    if (members?.length === 0) this.#byUser.delete(username!);
  }

  /** Its socket is gone. Called once, after `onEnd`; never for a peer that does not answer. */
  onGone(member: Member): void {
    this.#zombies.delete(member);
    const { addressKey } = member;
    if (addressKey !== undefined) {
      member.addressKey = undefined;
      const left = this.countAt(addressKey) - 1;
      if (left > 0) this.#byAddress.set(addressKey, left);
      else this.#byAddress.delete(addressKey);
    }
    for (const listener of this.#goneListeners) listener();
  }

  /** A socket is lost, because of a client there: it counts for as long as the process lives. */
  lose(addressKey: string): void {
    this.#lost++;
    this.#byAddress.set(addressKey, this.countAt(addressKey) + 1);
  }

  /** The client, told to close, went on sending as fast as it could. */
  onFlood(member: Member): void {
    const { addressKey } = member;
    if (addressKey !== undefined) this.#options.onFlood(addressKey);
  }

  /** Whether a client that is refused may go on sending for a moment, so that it reads why. */
  isPatient({ addressKey }: Member): boolean {
    return addressKey === undefined || !this.#options.hasFlooded(addressKey);
  }

  /** Lets every session compare its position with the history, in slices: each asks Redis. */
  async verify(): Promise<void> {
    await inSlices(this.heartbeat.members, (member) => member.verify?.());
  }

  /**
   * Lets every session take what broadcasts there are, in slices: each writes to its client.
   * @param onError Has what one throws, which harms no other.
   */
  async hear(onError: (error: unknown) => void): Promise<void> {
    await inSlices(this.heartbeat.members, (member) => {
      try {
        member.hear?.();
      } catch (error) {
        onError(error);
      }
    });
  }

  /** Waits until it is so, which only a socket that goes can bring about, but no longer than a time on the clock of `performance.now()`. */
  async whenGone(isGone: () => boolean, endMs: number, signal?: AbortSignal): Promise<void> {
    if (isGone() || signal?.aborted) return;
    const over = Promise.withResolvers<void>();
    const look = () => isGone() && over.resolve();
    this.#goneListeners.add(look);
    const timer = setTimeout(over.resolve, Math.max(0, endMs - performance.now()));
    const abort = () => over.resolve();
    signal?.addEventListener("abort", abort);
    await over.promise;
    signal?.removeEventListener("abort", abort);
    clearTimeout(timer);
    this.#goneListeners.delete(look);
  }
}
