/**
 * The contract of a key-value store whose entries end by themselves: what tickets and revocations are kept in. Not a cache:
 * what was set is there until its time is up. It knows nothing of what the texts mean.
 */

/** What is published of an entry on a channel. */
export type Notice = { readonly channel: string; readonly payload: string };

/** What is published of a moment on a channel: the moment stands between the two. */
export type MomentNotice = { readonly channel: string; readonly head: string; readonly tail: string };

/** A moment in Unix seconds, or so many seconds from now, by the clock of the store or of this process, whichever is later. */
export type Moment = { readonly at: number } | { readonly aheadS: number };

export interface TtlStore {
  /**
   * All or nothing: what can't be told is not set either.
   * @param notice Published in the same step: who hears it finds the entry there, and no entry is there unheard of.
   * @throws {BrokerUnavailableError}
   */
  set(name: string, text: string, ttlMs: number, notice: Notice): Promise<void>;
  /**
   * Sets a moment unless a later one is there, and starts its time anew; one step, so that of many at once the
   * latest stays. A moment from now is later than any that is there.
   * @param ttlMs Counted from the moment when that is still to come.
   * @param notice As for `set`; published also when a later moment is there.
   * @returns What is there now, in Unix seconds.
   * @throws {BrokerUnavailableError}
   */
  setMax(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number>;
  /** What is there under each name. All names share a hash slot. @throws {BrokerUnavailableError} */
  getMany(names: readonly string[]): Promise<(string | undefined)[]>;
  /**
   * Sets an entry of which there is never a second: once it was taken, no copy of it is an entry, whether it comes back with
   * older data, is loaded, or is restored. It may be lost with the process that keeps it.
   * @param name Names its hash slot in braces.
   * @throws {BrokerUnavailableError}
   */
  setUnique(name: string, text: string, ttlMs: number): Promise<void>;
  /** What was set with `setUnique`. @throws {BrokerUnavailableError} */
  getUnique(name: string): Promise<string | undefined>;
  /** Takes it away and returns it; of many takers one gets it. @throws {BrokerUnavailableError} */
  takeUnique(name: string): Promise<string | undefined>;
  /**
   * The clock of the store, which all nodes share: Unix seconds with fractions.
   * @param name Any that will be used next: it says where to ask.
   * @throws {BrokerUnavailableError}
   */
  now(name: string): Promise<number>;
}

/** By so many seconds a moment is later than the one before it at least. */
export const LATER_S = 0.00001;
