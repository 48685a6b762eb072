/**
 * Sends to groups. It owns the order of sends to one group, and what the sender is told of one; how it is sent page after
 * page is in `group_run.ts`.
 */
import type { Tally } from "../history/history.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { GroupRun, type GroupRunOptions, type GroupSend } from "./group_run.ts";
import type { SendOptions } from "./send.ts";

/** What may be said of a message to a group. */
export interface GroupSendOptions extends SendOptions {
  /** `online` keeps no copy for members who are offline: they get a number, and a gap when they return. @default "all" */
  store?: "all" | "online";
  /** A member who does not get it. */
  except?: string;
}

/** What became of a message to a group: how many users, but for sockets and nodes. */
export type GroupSendResult = {
  /** Id of the message, the same for all members. */
  id: string;
  /** Members that it was numbered for. */
  users: number;
  /** Of these, who had a socket. */
  online: number;
  /** Sockets that it was handed to; with shared subscriptions instead `nodes`, counted once for each member. */
  sockets?: number;
  nodes?: number;
  /** Of these, who had none, and for whom it is kept. */
  stored: number;
  /** Members who got nothing, and no number: no socket, and not seen for a day. */
  unknown: number;
  /** With `expectOnline`: members left out because they had no socket. */
  offline?: number;
  /** Members for whom Redis refused it, as where another program holds one of their keys; missing for none. */
  failed?: number;
  /** How many sockets' clients have acknowledged it; only when that was waited for. */
  acked?: number;
  /** This is the result of an earlier send with the same idempotency key; nothing was sent now. */
  repeated?: true;
};

export interface GroupSenderOptions extends GroupRunOptions {
  readonly metrics: Metrics | undefined;
}

export class GroupSender {
  readonly #options: GroupSenderOptions;
  /** The end of the last send to each group that is under way: sends to one group come to each member in one order. */
  readonly #last = new Map<string, Promise<void>>();

  constructor(options: GroupSenderOptions) {
    this.#options = options;
  }

  /**
   * Sends it when those before it to the same group have been sent.
   * @returns What became of it, all tries together; and of this call alone.
   * @throws {GroupNotFoundError | GroupTooLargeError | IdempotencyConflictError} when nothing was sent.
   * @throws {GroupSendBrokenError | BrokerUnavailableError}
   */
  async send(send: GroupSend): Promise<{ result: GroupSendResult; tally: Tally }> {
    const { group } = send;
    const before = this.#last.get(group);
    const { promise: ended, resolve: end } = Promise.withResolvers<void>();
    this.#last.set(group, ended);
    await before;
    try {
      return await this.#counted(send);
    } finally {
      if (this.#last.get(group) === ended) this.#last.delete(group);
      end();
    }
  }

  async #counted(send: GroupSend): Promise<{ result: GroupSendResult; tally: Tally }> {
    const { metrics, broker } = this.#options;
    const startMs = performance.now();
    const sending = new GroupRun(send, this.#options);
    try {
      const { id, tally, isRepeated } = await sending.run();
      metrics?.onGroupSend(isRepeated ? "repeated" : "sent", sending.own, startMs);
      const { users, online, reached, stored, unknown, offline, failed } = tally;
      const result: GroupSendResult = {
        ...{ id, users, online, [broker.counted]: reached, stored, unknown },
        ...(send.options.expectOnline && { offline }),
        ...(failed > 0 && { failed }),
        ...(isRepeated && { repeated: true }),
      };
      return { result, tally: sending.own };
    } catch (error) {
      const outcome = error instanceof BrokerUnavailableError ? "unavailable" : "refused";
      metrics?.onGroupSend(outcome, sending.own, startMs);
      throw error;
    }
  }
}
