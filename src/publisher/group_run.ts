/**
 * One send to a group under way: page after page of the members, each appended for in one step, as a *run* of the history
 * that a retry goes on with. Who is in the group and how far the run has come it asks.
 */
import type { Turns } from "../async/turns.ts";
import type { Broker } from "../broker/broker.ts";
import type { Groups, MemberPage } from "../groups/groups.ts";
import {
  doneIn,
  type History,
  NOTHING_DONE,
  type OutgoingMessage,
  type PageOptions,
  type PageOutcome,
  type Run,
  RUN_LEASE_MS,
  type RunName,
  type RunPage,
  type Tally,
} from "../history/history.ts";
import {
  BrokerUnavailableError,
  GroupNotFoundError,
  GroupSendBrokenError,
  GroupTooLargeError,
  IdempotencyConflictError,
} from "../protocol/errors.ts";
import { channelOf, groupTag } from "../protocol/username.ts";
import { nothingSent, PORTION_BYTES, PORTION_SENDS } from "./send.ts";
import type { UnackedSend } from "./unacked_send.ts";

/** A message to a group, checked and written. */
export interface GroupSend {
  /** Checked, as members are. */
  readonly group: string;
  readonly except: string | undefined;
  readonly id: string;
  /** Where it is known by a key: that, and what tells this message from others. */
  readonly idempotency: { readonly key: string; readonly fingerprint: string } | undefined;
  readonly options: PageOptions;
  /** Set when it is told who has not confirmed it. */
  readonly unacked?: UnackedSend | undefined;
  /** Writes it, with the id of the first try. */
  write(id: string): OutgoingMessage;
}

export interface GroupRunOptions {
  readonly broker: Broker;
  readonly history: History;
  readonly groups: Groups;
  readonly turns: Turns;
  readonly prefix: string;
  readonly maxGroupUsers: number;
  readonly maxFanoutBytes: number;
}

/** How long part of a cluster may be away in the middle of a send, before it is broken off. */
const PATIENCE_MS = 10_000;
const AGAIN_MS = 100;
const GONE = "The group was deleted, or lost with data of Redis, while it was sent to";

export class GroupRun {
  readonly #send: GroupSend;
  readonly #options: GroupRunOptions;
  readonly #name: RunName;
  #run: Run | undefined;
  /** What was done before this call began. */
  #before: Tally = NOTHING_DONE;
  /** Members that the group had when the first page was read. */
  #of = 0;

  constructor(send: GroupSend, options: GroupRunOptions) {
    this.#send = send;
    this.#options = options;
    const { group, idempotency } = send;
    this.#name = {
      channel: groupTag(options.prefix, group),
      // No key of a caller has a space in it.
      key: idempotency?.key ?? `run ${crypto.randomUUID()}`,
      isKept: idempotency !== undefined,
    };
  }

  /** What was done by this call alone. */
  get own(): Tally {
    const own: Record<string, number> = {};
    for (const [what, before] of Object.entries(this.#before)) {
      own[what] = (this.#run?.tally[what as keyof Tally] ?? 0) - before;
    }
    return own as unknown as Tally;
  }

  async run(): Promise<{ id: string; tally: Tally; isRepeated: boolean }> {
    const first = await this.#open(false);
    if ("tally" in first) return { ...first, isRepeated: true };
    this.#before = first.run.tally;
    this.#run = first.run;
    try {
      for (;;) {
        const isLast = await this.#nextPage();
        if (isLast) return { id: this.#run.id, tally: this.#run.tally, isRepeated: false };
        if (isLast !== undefined) continue;
        // Another process has gone on with this key.
        const later = await this.#open(true);
        if ("tally" in later) return { ...later, isRepeated: true };
        this.#run = later.run;
      }
    } catch (error) {
      await this.#options.history.leaveRun(this.#run).catch(() => {});
      throw error instanceof BrokerUnavailableError ? this.#brokenOff(error) : error;
    }
  }

  /** Begins the run, or takes it up. */
  async #open(isAgain: boolean): Promise<{ run: Run } | { id: string; tally: Tally }> {
    const { history, broker } = this.#options;
    const { id, idempotency } = this.#send;
    const reason = broker.unavailable();
    if (reason !== undefined) throw new BrokerUnavailableError(reason);
    const message = { id, fingerprint: idempotency?.fingerprint ?? "" };
    // Whoever holds it and gives no sign of life has lost it by then.
    const endMs = performance.now() + RUN_LEASE_MS + PATIENCE_MS;
    for (;;) {
      const opened = await history.openRun(this.#name, message, { isAgain }).catch(nothingSent);
      if (opened.outcome === "open" || opened.outcome === "done") return opened;
      if (opened.outcome === "conflict") {
        throw new IdempotencyConflictError(
          "This idempotency key was used for another message: use a new key",
        );
      }
      if (opened.outcome === "lost") {
        throw new BrokerUnavailableError("Redis has lost how far this send had come", { outcome: "unknown" });
      }
      if (performance.now() > endMs) {
        throw new BrokerUnavailableError("Another call with this idempotency key is still sending");
      }
      await pause();
    }
  }

  /** @returns Whether it was the last one; undefined when somebody else has gone on with the run. */
  async #nextPage(): Promise<boolean | undefined> {
    const { groups, prefix, history: { spread = 1 } } = this.#options;
    const { group, except } = this.#send;
    const run = this.#run!;
    const message = this.#send.write(run.id);
    const bytes = message.head.length + message.tail.length;
    const size = Math.max(1, Math.min(PORTION_SENDS, Math.floor(PORTION_BYTES / bytes)));
    // Of several masters each has a portion to do.
    const members = await groups.page(group, run.cursor, size * spread);
    this.#assertSendable(members, bytes);
    const { names } = members;
    const users = names.filter((name) => name !== except && !run.beyond.has(channelOf(name, prefix)));
    const page: RunPage = {
      channels: users.map((name) => channelOf(name, prefix)),
      from: run.cursor,
      to: names.at(-1) ?? run.cursor,
      isLast: !members.hasMore,
    };
    const append = () => this.#append(page, message, bytes);
    const { unacked } = this.#send;
    const done = unacked && users.length > 0
      ? await unacked.around(run.id, users, append, ({ outcome }) => outcome === "passed" ? "not sent" : {})
      : await append();
    if (done.outcome === "passed") return undefined;
    this.#run = { ...run, cursor: page.to, beyond: new Set(), tally: done.tally };
    return page.isLast;
  }

  /**
   * @throws {GroupNotFoundError | GroupTooLargeError} before anything is sent by this call.
   * @throws {BrokerUnavailableError} when the group went away in the middle.
   */
  #assertSendable(members: MemberPage | undefined, bytes: number): asserts members {
    const { maxGroupUsers, maxFanoutBytes } = this.#options;
    const { group } = this.#send;
    const { cursor, tally } = this.#run!;
    if (!members && doneIn(this.own) === 0) throw groupNotFound(group);
    // It may be lost and not deleted: to say that it has no more users would be to lose messages in silence.
    if (!members) throw new BrokerUnavailableError(GONE, { outcome: "unknown" });
    if (this.#of === 0) this.#of = members.users;
    if (cursor !== "" || doneIn(tally) > 0) return;
    if (members.users > maxGroupUsers) {
      throw new GroupTooLargeError(
        `The group has ${members.users} users, and a message goes to at most ${maxGroupUsers}: raise ` +
          "USERWIRE_MAX_GROUP_USERS, or make smaller groups",
      );
    }
    if (members.users * bytes <= maxFanoutBytes) return;
    throw new GroupTooLargeError(
      `A message to a group may have at most ${maxFanoutBytes} bytes, counted once for each user: this one has ` +
        `${members.users * bytes}. Make it or the group smaller, or raise USERWIRE_MAX_FANOUT_BYTES`,
    );
  }

  /** Appends a page: those that a part of a cluster can't be asked for now once more, until patience is over. */
  async #append(page: RunPage, message: OutgoingMessage, bytes: number): Promise<PageOutcome> {
    const { history, turns } = this.#options;
    const endMs = performance.now() + PATIENCE_MS;
    const line = turns.line();
    for (let channels = page.channels;;) {
      await this.#available(channels, endMs);
      const append = () => history.appendPage(this.#run!, { ...page, channels }, message, this.#send.options);
      const done = await line.run(append, bytes * channels.length, channels.length);
      if (done.outcome === "passed" || done.left.length === 0) return done;
      this.#run = { ...this.#run!, tally: done.tally };
      channels = done.left;
      // What may have been sent is not sent again as long as that can be helped.
      if (done.reason?.outcome === "unknown" || performance.now() > endMs) throw done.reason;
      await pause();
    }
  }

  /** Resolves when all can be sent to: where slots of a cluster have moved, subscriptions follow within seconds. */
  async #available(channels: readonly string[], endMs: number): Promise<void> {
    const { broker } = this.#options;
    for (;;) {
      const channel = channels.find((channel) => broker.unavailable(channel) !== undefined);
      const reason = channel === undefined ? undefined : broker.unavailable(channel);
      if (reason === undefined) return;
      if (broker.unavailable() !== undefined || performance.now() > endMs) {
        throw new BrokerUnavailableError(reason);
      }
      await pause();
    }
  }

  #brokenOff(error: BrokerUnavailableError): Error {
    const done = doneIn(this.#run!.tally);
    const remedy = this.#name.isKept
      ? "a retry with the same idempotency key goes on after them"
      : "a retry sends it to them again: with an idempotency key it would go on after them";
    const text = `${error.message}; ${done} of ${this.#of} members are done with, ${remedy}`;
    return new GroupSendBrokenError(text, done, this.#of, { cause: error });
  }
}

export function groupNotFound(group: string): GroupNotFoundError {
  return new GroupNotFoundError(
    `There is no group ${
      JSON.stringify(group)
    }: it was never made, has no users left, or was lost with the data of Redis`,
  );
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
}
