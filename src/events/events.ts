/**
 * The contract of what is told to the backend: who came online and went offline, and an outbox that holds it until the
 * backend has taken it. The room owns the decision and the storage; how an event is carried is in `webhooks/`.
 *
 * What counts is the subscriptions that the broker has; kept here is only what was *told*. So a node that dies with its
 * users, or a store that lost its memory, leaves nothing wrong for longer than a sweep takes.
 *
 * Guarantees, for every implementation (`tests/contracts/events.ts` checks them):
 *
 * - An event is written in the same step as the decision: nothing is told that was not decided, and nothing decided stays
 *   untold, but for what the store lost or had to drop, which is followed by `users.unknown`.
 * - What was told before a `users.unknown` is void: `note` tells users anew that it is given again, and `life` says when to.
 * - Each event has an `n` of its own, above all before it, also when the clock of the store is set back. Events may come
 *   late, twice and out of order: who ignores what has a smaller `n` than the last one of that user is right in the end.
 * - Of many nodes that take at once, one gets an entry, until its hold is over.
 */

import type { UnackedStore } from "./unacked.ts";

/** What there is to be told. */
export const EVENT_TYPES = [
  /** `{changes: [{user, online, n}]}`: the last word on each of these users. */
  "users.changed",
  /**
   * `{n}`: something was not told, or may not have been. Nobody is online any more by what was told before; who is here is
   * told again.
   */
  "users.unknown",
  /** `{user, id, ts, seq?, group?, traceparent?, sockets}`: no client of the user has confirmed this message in time. */
  "message.unacked",
] as const;
export type EventType = (typeof EVENT_TYPES)[number];

/** One event as it waits. */
export interface Entry {
  /** The same at each attempt, on each node. */
  readonly id: string;
  readonly type: EventType;
  /** When it was decided, in Unix milliseconds by the clock of the store. */
  readonly atMs: number;
  /** JSON. */
  readonly data: string;
}

export interface Taken {
  readonly entries: readonly Entry[];
  /** When the oldest that was not carried yet was decided, in Unix milliseconds; undefined when there is none. */
  readonly oldestMs: number | undefined;
  /** Events that were dropped now, because they are too old or too many. */
  readonly dropped: number;
}

export interface EventStore extends UnackedStore {
  /**
   * Users with a first subscription here, and users with none here any more: who is not told online is from now on; who has
   * gone is looked at again after `offlineAfterMs`. All of `opened` come before all of `closed`.
   * @returns Whether there is a new event.
   * @throws {BrokerUnavailableError}
   */
  note(opened: readonly string[], closed: readonly string[]): Promise<boolean>;
  /**
   * Tells of those who were to be looked at by now, and have no subscription anywhere.
   * @returns Whether there may be more of them.
   * @throws {BrokerUnavailableError}
   */
  settle(): Promise<boolean>;
  /**
   * Looks for users that are told online and have no subscription, a page at a time; nodes share this work.
   * @throws {BrokerUnavailableError}
   */
  sweep(): Promise<void>;
  /**
   * Entries to carry now, oldest first, which nobody else gets until `holdMs` are over.
   * @throws {BrokerUnavailableError}
   */
  take(most: number): Promise<Taken>;
  /** It was carried, and is forgotten. @throws {BrokerUnavailableError} */
  done(id: string): Promise<void>;
  /** The backend does not take this one: it comes again after a pause, which grows. @throws {BrokerUnavailableError} */
  putOff(id: string): Promise<void>;
  /** Another one after each `users.unknown`, then users that are online must be noted again; "" as long as none is known. */
  life(): string;
}

export interface EventStoreOptions {
  /** How long a user must be gone before that is told, in milliseconds. */
  readonly offlineAfterMs: number;
  /** For so long nobody else gets an entry that was taken, in milliseconds: longer than carrying it may take. */
  readonly holdMs: number;
  /** What the counts are. */
  readonly counted: "sockets" | "nodes";
  /** Counts the subscriptions of users. @throws {BrokerUnavailableError} */
  counts(users: readonly string[]): Promise<number[]>;
}

/** An outbox holds so many events at most; the oldest give way. */
export const MAX_EVENTS = 100_000;
/** After so long an event is dropped. */
export const MAX_AGE_MS = 24 * 3_600_000;
/** An event holds so many changes at most. */
export const MAX_CHANGES = 100;
/** So many users are looked at in one step at most: everybody else on the store waits meanwhile. */
export const MOST_DUE = 500;
/** Of those that are told online so many are looked at in one page. */
export const SWEEP_PAGE = 1_000;
/** From one page to the next, and from the start of one round to that of the next. */
export const SWEEP_PAGE_MS = 250;
export const SWEEP_ROUND_MS = 30_000;
/** Pauses before an entry that was refused comes again; the last one holds for all further ones. */
export const PUT_OFF_MS: readonly number[] = [5_000, 30_000, 120_000, 600_000, 1_800_000];
/** An `n` is a Unix millisecond times this, plus a number below it: larger than what came before, and exact as a double. */
export const PER_MS = 4096;
