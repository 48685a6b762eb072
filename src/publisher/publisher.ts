/**
 * The backend's single way to send. The HTTP API uses it, and so does a backend that imports it (`mod.ts`).
 *
 * It owns how a message is checked, written and put on its way, and the result that the caller gets. It promises that what
 * it rejects before sending was not sent, and says of everything else how many sockets were reached. It never asks whether
 * the user is online before it sends: the answer could be stale one moment later, and the reply of the publish itself says
 * it. It knows broker and history by their contracts, and nothing of HTTP, sessions or sockets.
 */
import { type Line, Turns } from "../async/turns.ts";
import type { Broker } from "../broker/broker.ts";
import { openEngine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { History } from "../history/history.ts";
import { formatReceipt } from "../protocol/envelope.ts";
import { BrokerUnavailableError, IdempotencyConflictError } from "../protocol/errors.ts";
import { type NameRules, parseUsername } from "../protocol/username.ts";
import { Appender } from "./appender.ts";
import { broadcast, type BroadcastOptions, type BroadcastResult } from "./broadcast.ts";
import { GroupSender, type GroupSendOptions, type GroupSendResult } from "./group_send.ts";
import { GroupBook, NO_GROUPS } from "./groups.ts";
import { assertUsable, type PublisherOptions } from "./options.ts";
import { payloadFrom, type Sendable } from "./payload.ts";
import {
  appendOptionsOf,
  checkedId,
  checkedSend,
  type ManySendOptions,
  outgoingMessage,
  PORTION_BYTES,
  PORTION_SENDS,
  type SendOptions,
  type SendResult,
} from "./send.ts";
import { type UnackedBook, UnackedSend } from "./unacked_send.ts";
import { Users } from "./users.ts";

/** A message to one user, checked. */
type CheckedSend = ReturnType<typeof checkedSend> & {
  readonly channel: string;
  readonly unacked: UnackedSend | undefined;
  readonly traceparent: string | undefined;
};

export class Publisher extends Users implements AsyncDisposable {
  /** Who is in which group. */
  readonly groups: GroupBook;
  readonly #history: History;
  readonly #prefix: string;
  readonly #names: NameRules;
  readonly #appender: Appender;
  readonly #groupSender: GroupSender;
  readonly #turns = new Turns();
  readonly #unacked: UnackedBook | undefined;
  #closeEngine: () => Promise<void> = () => Promise.resolve();

  /** A publisher on a broker and a history that stay the caller's to close. */
  constructor(broker: Broker, history: History, options: PublisherOptions = {}) {
    const prefix = options.channelPrefix ?? "";
    const names = {
      fold: options.foldUsernames ?? false,
      bare: prefix === "" && broker.kind === "redis",
    };
    super({ broker, history, prefix, names });
    this.#history = history;
    this.#prefix = prefix;
    this.#names = names;
    this.#appender = new Appender(broker, history, options.metrics);
    this.#unacked = options.unacked;
    const { groups = NO_GROUPS, maxGroupUsers = 10_000, maxFanoutBytes = 64 * 1024 ** 2, metrics } = options;
    const shared = { prefix, names, maxGroupUsers, maxFanoutBytes, metrics };
    this.groups = new GroupBook(groups, broker, shared);
    this.#groupSender = new GroupSender({ ...shared, broker, history, groups, turns: this.#turns });
  }

  /**
   * A publisher with connections of its own, for a backend. Its `history` and `subscriptions` must be those of the
   * service. Without `redisUrl` it reaches nobody but itself.
   * @throws {ConfigError} when the prefix or what TLS is given can't be used, or the URL names a database without a prefix.
   * @throws {Error} when Redis answers and refuses the login. What it said is the cause.
   */
  static async open(options: EngineOptions & PublisherOptions): Promise<Publisher> {
    assertUsable(options);
    const engine = openEngine(options);
    const attempt = await engine.firstAttempt(options.redisTimeoutMs ?? 3_000);
    if (attempt.outcome === "refused") {
      await engine.close();
      throw new Error(`Can't open a publisher: ${attempt.reason}`, { cause: attempt.detail });
    }
    const publisher = new Publisher(engine.broker, engine.history, { groups: engine.groups, ...options });
    publisher.#closeEngine = engine.close;
    return publisher;
  }

  /**
   * Sends a message to every socket of a user, in one round trip.
   * @param message A string is sent as text, a `Uint8Array` as bytes, every other value as JSON; or a payload that says
   * its kind itself, `{ kind: "json", text: '{"order":7}' }`, whose JSON text goes to raw sockets byte for byte.
   * @throws {InvalidUsernameError | InvalidMessageError} before anything is sent.
   * @throws {UserOfflineError} with `expectOnline`, when nobody is there; nothing is stored.
   * @throws {IdempotencyConflictError} when the key was used for another message.
   * @throws {BrokerUnavailableError}
   */
  async send(username: string, message: Sendable, options: SendOptions = {}): Promise<SendResult> {
    const send = this.#checked(username, message, options);
    const { waitAckMs, traceparent } = options;
    const { channel, id, payload, appendOptions, unacked } = send;
    if (waitAckMs === undefined && !unacked) {
      // Awaited, because an async function that returns a promise takes two turns more.
      return await this.#appender.append(
        channel,
        outgoingMessage(payload, id, { traceparent }),
        appendOptions,
      );
    }
    if (waitAckMs === undefined) return await this.#sendAsked(send, undefined);
    using wait = await this.receipts.wait();
    const result = await this.#sendAsked(send, wait.receipt);
    if (result.repeated) return result;
    return { ...result, ...await wait.acked(result.nodes ?? result.sockets, waitAckMs) };
  }

  /** Sends a message whose client is asked to acknowledge it. @param waiter Where receipts go. */
  async #sendAsked(send: CheckedSend, waiter: string | undefined): Promise<SendResult> {
    const { channel, id, payload, appendOptions, unacked, traceparent } = send;
    const receipt = formatReceipt({ waiter, token: unacked?.token });
    const outgoing = outgoingMessage(payload, id, {
      receipt,
      traceparent,
      ...(unacked && { ts: unacked.ts }),
    });
    const append = () => this.#appender.append(channel, outgoing, appendOptions);
    if (!unacked) return await append();
    const user = channel.slice(this.#prefix.length);
    return await unacked.around(id, [user], append, ({ repeated, seq }) => repeated ? "not sent" : { seq });
  }

  /**
   * Sends one message to many users, in portions, so that what others send meanwhile goes out in between. It is checked
   * and written once, which for a large one costs more than sending it.
   * @param message As for `send`.
   * @param options.line Sends in one line arrive in the order in which they were given; several lines take turns.
   *   @default a line of its own
   * @returns What became of it, in the order of the users.
   * @throws {InvalidUsernameError | InvalidMessageError} before anything is sent.
   */
  async sendToAll(
    usernames: readonly string[],
    message: Sendable,
    options: ManySendOptions & { line?: Line } = {},
  ): Promise<PromiseSettledResult<SendResult>[]> {
    const { line = this.line(), traceparent } = options;
    const appendOptions = appendOptionsOf(options);
    const outgoing = outgoingMessage(payloadFrom(message), checkedId(options.id), { traceparent });
    const bytes = outgoing.head.length + outgoing.tail.length;
    if (usernames.length === 1) {
      const channel = this.channel(usernames[0]!);
      return [await line.run(() => this.#appender.appendAmongMany(channel, outgoing, appendOptions), bytes)];
    }
    const size = Math.max(1, Math.min(PORTION_SENDS, Math.floor(PORTION_BYTES / bytes)));
    const channels = usernames.map((username) => this.channel(username));
    const sending: Promise<PromiseSettledResult<SendResult>[]>[] = [];
    for (let at = 0; at < channels.length; at += size) {
      const portion = channels.slice(at, at + size);
      const send = () => this.#appender.appendToAll(portion, outgoing, appendOptions);
      sending.push(line.run(send, portion.length * bytes, portion.length));
    }
    return (await Promise.all(sending)).flat();
  }

  /**
   * Sends a message to every user of a group, page after page; sends to one group by one publisher come to each in one
   * order. With an idempotency key a send that broke off is gone on with: each user gets it once, or, on a cluster, those of
   * one page twice. Users without a socket who were not seen for a day are passed over.
   * @param message As for `send`.
   * @throws {InvalidGroupNameError | InvalidUsernameError | InvalidMessageError} before anything is sent.
   * @throws {GroupNotFoundError | GroupTooLargeError | IdempotencyConflictError} when nothing was sent.
   * @throws {GroupSendBrokenError} when it broke off: it says after how many.
   * @throws {BrokerUnavailableError}
   */
  async sendToGroup(
    group: string,
    message: Sendable,
    options: GroupSendOptions = {},
  ): Promise<GroupSendResult> {
    const { except, store, waitAckMs, traceparent } = options;
    const name = this.groups.name(group);
    const { payload, id, appendOptions: { idempotency, ...append } } = checkedSend(
      message,
      options,
      this.keepsHistory,
    );
    const send = {
      group: name,
      except: except === undefined ? undefined : parseUsername(except, this.#names),
      id,
      idempotency,
      options: { ...append, ...(store && { keepFor: store }) },
      unacked: this.#unackedSend(options, name),
    };
    const { unacked } = send;
    const write = (id: string, waiter?: string) =>
      outgoingMessage(payload, id, {
        receipt: formatReceipt({ waiter, token: unacked?.token }),
        ...{ group: name, traceparent },
        ...(unacked && { ts: unacked.ts }),
      });
    if (waitAckMs === undefined) return (await this.#groupSender.send({ ...send, write })).result;
    using wait = await this.receipts.wait();
    const waited = { ...send, write: (id: string) => write(id, wait.receipt) };
    const { result, tally } = await this.#groupSender.send(waited);
    if (result.repeated) return result;
    const { acked, sockets } = await wait.acked(tally.reached, waitAckMs);
    const isWhole = tally.users === result.users;
    return { ...result, ...(isWhole && sockets !== undefined && { sockets }), acked };
  }

  /**
   * Sends a message to everybody who is connected, to any node.
   * @param message As for `send`.
   * @throws {InvalidMessageError} before anything is sent.
   * @throws {IdempotencyConflictError} when the key was used for another broadcast.
   * @throws {BrokerUnavailableError}
   */
  async broadcast(message: Sendable, options: BroadcastOptions = {}): Promise<BroadcastResult> {
    const parts = { appender: this.#appender, receipts: this.receipts, channelPrefix: this.#prefix };
    return await broadcast(parts, message, options);
  }

  /** A line for the sends of one caller, see `sendToAll`. */
  line(): Line {
    return this.#turns.line();
  }

  /**
   * Notes what an idempotency key stands for, before several sends with it.
   * @throws {IdempotencyConflictError} when it stands for something else.
   * @throws {BrokerUnavailableError} whose outcome is always "refused", for nothing is sent by this.
   */
  async claim(key: string, fingerprint: string): Promise<void> {
    this.#appender.assertAvailable();
    const isOurs = await this.#history.claim(this.#prefix, { key, fingerprint }).catch((error: unknown) => {
      if (!(error instanceof BrokerUnavailableError)) throw error;
      // Whether it was noted or not, the sends have not begun: that is what the caller has to know.
      throw new BrokerUnavailableError(error.message, { outcome: "refused", cause: error });
    });
    if (isOurs) return;
    throw new IdempotencyConflictError("This idempotency key was used for another call: use a new key");
  }

  /**
   * Takes back what `claim` noted, when nothing was sent: another call may have the key. Where that can't be noted now,
   * the claim ends by itself.
   */
  async release(key: string, fingerprint: string): Promise<void> {
    try {
      await this.#history.release(this.#prefix, { key, fingerprint });
    } catch (error) {
      if (!(error instanceof BrokerUnavailableError)) throw error;
    }
  }

  /** Closes what `open` opened. */
  async close(): Promise<void> {
    await this.receipts.close();
    await this.#closeEngine();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Checks all that can be checked before anything is sent. A refusal is counted.
   * @throws {InvalidUsernameError | InvalidMessageError}
   */
  #checked(username: string, message: Sendable, options: SendOptions): CheckedSend {
    return this.#appender.checked(() => ({
      ...checkedSend(message, options, this.keepsHistory),
      channel: this.channel(username),
      unacked: this.#unackedSend(options),
      traceparent: options.traceparent,
    }));
  }

  #unackedSend({ unackedMs, traceparent }: SendOptions, group?: string): UnackedSend | undefined {
    if (unackedMs === undefined) return undefined;
    const { keepsHistory } = this;
    return new UnackedSend(this.#unacked, { unackedMs, keepsHistory, group, traceparent });
  }
}
