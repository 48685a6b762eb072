/**
 * The contract of the history: the last messages of each user, kept for a while, so that one that was missed comes later
 * instead of never. The room owns numbers, epochs and tags, where messages are kept, and how a lost or set back store is
 * recognised. It knows channels, not users; envelopes, not payloads; and nothing of who reads, nor why.
 *
 * A message's place is its *sequence number*, 1, 2, 3, … per user without holes, inside an *epoch*: a random name that is
 * made together with the counter. When the counter is lost, or the store came back with older data, a new epoch begins,
 * so that an old position is never taken for a new one. Should that go unnoticed, a position proves itself: each message
 * has a *tag*, some random characters, and a number that is given out a second time comes with another tag.
 *
 * Guarantees, for every implementation (`tests/contracts/history.ts` checks them):
 *
 * - `append` is one atomic step: it looks for the idempotency key, takes the next number, stores the message and
 *   publishes it. The order in the history is the order on the channel, and what was published is stored already.
 * - `since` shows one moment: `last` and the messages belong together.
 * - A message leaves when there are more than `count` after it, or when its time is over; never earlier. What has
 *   left is not returned. The counter outlives the messages.
 * - An implementation that can't be reached rejects with `BrokerUnavailableError` within a bounded time.
 */
import type { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Position } from "../protocol/position.ts";

/** How much is kept of each user. */
export interface HistoryLimits {
  /** Messages; 0 keeps nothing, and messages then have no sequence number. */
  count: number;
  /** How long a message is kept unless its sender says otherwise, in milliseconds. */
  ttlMs: number;
}

/** A message to be appended: the envelope in two halves, between which its sequence number goes. */
export interface OutgoingMessage {
  readonly id: string;
  readonly head: string;
  readonly tail: string;
}

/** A caller's key, and what tells one message or call from another with the same key. */
export interface Idempotency {
  readonly key: string;
  readonly fingerprint: string;
}

export interface AppendOptions {
  /** How long to keep this message, in milliseconds. @default the limit of the history */
  ttlMs?: number;
  /** Only if somebody listens; else nothing is stored, counted or published. */
  expectOnline?: boolean;
  /** Makes a repeated call return the first result and do nothing. Keys are unique per user. */
  idempotency?: Idempotency;
}

/** One of several messages. */
export interface Send {
  readonly channel: string;
  readonly message: OutgoingMessage;
  readonly options: AppendOptions;
}

/** What `append` did. */
export type Appended =
  | {
    readonly outcome: "appended" | "repeated";
    /** Id of the message; of the first one when this is a repetition. */
    readonly id: string;
    /** Undefined while nothing is kept. */
    readonly position: Position | undefined;
    /** How many subscriptions the channel has, counted in the same step. */
    readonly reached: number;
  }
  /** Nobody listens, and `expectOnline` was asked for. */
  | { readonly outcome: "offline" }
  /** The idempotency key belongs to another message. */
  | { readonly outcome: "conflict" };

/** What became of a message to many users, so far: how many users, but for `reached`. */
export interface Tally {
  /** It was numbered for them; where nothing is kept, handed to them. */
  readonly users: number;
  /** Of these, who had a subscription. */
  readonly online: number;
  /** Subscriptions that it was handed to. */
  readonly reached: number;
  /** Of these, for whom it was kept while they had none. */
  readonly stored: number;
  /** Passed over: nobody listens, and there is no counter that a client could come back to. */
  readonly unknown: number;
  /** Passed over for `expectOnline`. */
  readonly offline: number;
  /** Refused for them alone, as where another program holds one of their keys. */
  readonly failed: number;
}

/** One message on its way to many users, page after page. How far it has come is kept, so that another may go on. */
export interface Run {
  readonly name: RunName;
  /** Of the message: that of the first try. */
  readonly id: string;
  /** Up to where it has come, as the one who runs it says; "" at the beginning. */
  readonly cursor: string;
  /** Channels after the cursor for which it is done already. */
  readonly beyond: ReadonlySet<string>;
  readonly tally: Tally;
  /** Tells it from others that would go on with the same run. */
  readonly holder: string;
}

/** Where a run is kept. */
export interface RunName {
  /** Decides on which server, as that of a user does. */
  readonly channel: string;
  readonly key: string;
  /** Whether its outcome is remembered, for who comes again with the key. */
  readonly isKept: boolean;
}

export type OpenedRun =
  | { readonly outcome: "open"; readonly run: Run }
  /** It came to its end. */
  | { readonly outcome: "done"; readonly id: string; readonly tally: Tally }
  /** Somebody else is at it. */
  | { readonly outcome: "held" }
  /** It was to be there, and is not. */
  | { readonly outcome: "lost" }
  /** The key belongs to another message. */
  | { readonly outcome: "conflict" };

/** Some users that a run comes to in one go. */
export interface RunPage {
  /** Each once. */
  readonly channels: readonly string[];
  /** Where the run has to be. */
  readonly from: string;
  /** Where it is after this. */
  readonly to: string;
  readonly isLast: boolean;
}

export interface PageOptions extends Pick<AppendOptions, "ttlMs" | "expectOnline"> {
  /** Keeps it only for who listens; others have a number, and a hole they are told of. @default "all" */
  keepFor?: "all" | "online";
}

export type PageOutcome =
  /** It is noted how far it has come. */
  | {
    readonly outcome: "noted";
    readonly tally: Tally;
    /** To whom it did not come, for want of a server: the page is to be tried again with these alone. */
    readonly left: readonly string[];
    /** Why. */
    readonly reason?: BrokerUnavailableError;
  }
  /** The run is somewhere else: nothing was done, or on several servers that it was is noted nowhere. */
  | { readonly outcome: "passed" };

/** One stored message. */
export interface Stored {
  readonly seq: number;
  /** The envelope as it was published. */
  readonly envelope: string;
}

/** Part of a user's history, in order, as it was at one moment. */
export interface Page {
  readonly epoch: string;
  /** Epochs whose numbers this one goes on from, oldest first, each with the last number known to be its own. */
  readonly previousEpochs: readonly Position[];
  /** Number of the newest message; 0 before the first. */
  readonly last: number;
  /** Messages in order, holes where some have left. */
  readonly items: readonly Stored[];
  /** The page holds all there is up to this number; `last` when it reaches the end. */
  readonly upTo: number;
  /** Tag of the newest message; "" before the first, or when it has none. */
  readonly lastTag: string;
  /** Tag of the message after which the page begins; "" when that is not known any more. */
  readonly afterTag: string;
}

export interface SinceOptions {
  /** Look up `afterTag`, for which one more message may have to be read. @default false */
  proof?: boolean;
  /** Write nothing: where there is no epoch none begins, and the page has an empty name for it. @default false */
  peek?: boolean;
}

export interface History {
  readonly limits: HistoryLimits;
  /** Over how many stores the users of a page are spread, which work at the same time. @default 1 */
  readonly spread?: number;

  /** @throws {BrokerUnavailableError} */
  append(channel: string, message: OutgoingMessage, options?: AppendOptions): Promise<Appended>;

  /**
   * Appends one message for each of several channels: in their order, each in a step as `append`'s, whatever becomes of
   * the others. Everybody else on the store waits until all are done, so few at one time.
   * @returns What became of each.
   * @throws {BrokerUnavailableError} which is then true of all.
   */
  appendToAll(
    channels: readonly string[],
    message: OutgoingMessage,
    options?: AppendOptions,
  ): Promise<PromiseSettledResult<Appended>[]>;

  /**
   * Appends several messages: in their order, each in a step as `append`'s, whatever becomes of the others. As for
   * `appendToAll`, few at one time. Left out where it is no faster than one after the other.
   * @returns What became of each.
   * @throws {BrokerUnavailableError} which is then true of all.
   */
  appendEach?(sends: readonly Send[]): Promise<PromiseSettledResult<Appended>[]>;

  /**
   * Begins a run, or takes it up where it has come to.
   * @param options.isAgain It has begun: it is lost where nothing is known of it.
   * @throws {BrokerUnavailableError}
   */
  openRun(
    name: RunName,
    message: { readonly id: string; readonly fingerprint: string },
    options?: { isAgain?: boolean },
  ): Promise<OpenedRun>;

  /**
   * Appends one message for each user of a page, in their order and each in a step as `append`'s, and notes that the run
   * has come so far: on one server all in one step, so that each user gets it once, whoever goes on with the run; on
   * several the note comes after, so that a page may come twice when the process ends in between. Passes over users who
   * have neither a subscription nor a counter. Everybody else on the store waits until all are done, so few at one time.
   * @throws {BrokerUnavailableError} which is then true of all.
   */
  appendPage(
    run: Run,
    page: RunPage,
    message: OutgoingMessage,
    options?: PageOptions,
  ): Promise<PageOutcome>;

  /**
   * Lets go of a run that has not come to its end: another may take it up; one that has done nothing is forgotten.
   * @throws {BrokerUnavailableError}
   */
  leaveRun(run: Run): Promise<void>;

  /**
   * Notes what a key stands for where one is for many appends: for longer than these remember it.
   * @param prefix That of the installation's channels.
   * @returns False when it stands for something else.
   * @throws {BrokerUnavailableError}
   */
  claim(prefix: string, idempotency: Idempotency): Promise<boolean>;

  /**
   * Takes a claim back, when nothing was appended under it. The key is free when each call that claimed it has done so.
   * @throws {BrokerUnavailableError}
   */
  release(prefix: string, idempotency: Idempotency): Promise<void>;

  /**
   * The messages after a sequence number, oldest first; begins the epoch when there is none.
   * @param after Undefined for none: only the position is asked for.
   * @param limit At most so many messages are looked at; fewer where they are large.
   * @throws {BrokerUnavailableError}
   */
  since(channel: string, after: number | undefined, limit: number, options?: SinceOptions): Promise<Page>;

  /**
   * A client has left that was handed this message: a store in which it is not there was set back. The position has a tag.
   * Left out where that can't be.
   */
  left?(channel: string, position: Position): void;

  /**
   * Calls back when it turns out that the store was set back: positions had better be compared now. Left out where that
   * can't be.
   */
  onSetBack?(listener: () => void): void;
}

/** How long one holds a run that gives no sign of life, where two at the same run would send it twice. */
export const RUN_LEASE_MS = 15_000;

export const NOTHING_DONE: Tally = {
  users: 0,
  online: 0,
  reached: 0,
  stored: 0,
  unknown: 0,
  offline: 0,
  failed: 0,
};

/** Both together. */
export function sumOf(one: Tally, other: Tally): Tally {
  const sum: Record<string, number> = {};
  for (const [what, count] of Object.entries(one)) sum[what] = count + other[what as keyof Tally];
  return sum as unknown as Tally;
}

/** Users that a run is done with, whatever became of the message for them. */
export function doneIn({ users, unknown, offline, failed }: Tally): number {
  return users + unknown + offline + failed;
}
