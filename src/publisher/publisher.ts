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
import { prefix } from "../config/kinds.ts";
import { openEngine } from "../engine/engine.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { History } from "../history/history.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { CloseOrder } from "../protocol/close_codes.ts";
import { formatCloseOrder, formatReceipt } from "../protocol/envelope.ts";
import { BrokerUnavailableError, ConfigError, IdempotencyConflictError } from "../protocol/errors.ts";
import { channelOf, type NameRules, parseUsername } from "../protocol/username.ts";
import { databaseFault, parseRedisUrl, tlsFault } from "../redis/address.ts";
import type { Groups } from "../groups/groups.ts";
import { Appender } from "./appender.ts";
import { broadcast, type BroadcastOptions, type BroadcastResult } from "./broadcast.ts";
import {
  closeConnection,
  type CloseOne,
  type ConnectionClosed,
  type Connections,
  findConnections,
} from "./connections.ts";
import { GroupSender, type GroupSendOptions, type GroupSendResult } from "./group_send.ts";
import { GroupBook, NO_GROUPS } from "./groups.ts";
import { type HistoryPage, readHistory } from "./history_page.ts";
import { payloadFrom, type Sendable } from "./payload.ts";
import { Receipts } from "./receipts.ts";
import {
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

/** How a publisher turns a username into a channel. */
export interface PublisherOptions {
  /** Put before each username. @default "" */
  channelPrefix?: string;
  /** Lower-case usernames, as `USERWIRE_USERNAME_CASE=lower` does. @default false */
  foldUsernames?: boolean;
  /** Where groups are kept: that of the same engine. Without it there are none. */
  groups?: Groups;
  /** Users that a group may have. @default 10000 */
  maxGroupUsers?: number;
  /** Most bytes that one message to a group may have, counted once for each user. @default 64 MiB */
  maxFanoutBytes?: number;
  /** Where sends are counted. */
  metrics?: Metrics;
  /** Where it is noted of which messages it is told that nobody has acknowledged them. */
  unacked?: UnackedBook | undefined;
}

/** A message to one user, checked. */
type CheckedSend = ReturnType<typeof checkedSend> & {
  readonly channel: string;
  readonly unacked: UnackedSend | undefined;
  readonly traceparent: string | undefined;
};

export class Publisher implements AsyncDisposable {
  readonly receipts: Receipts;
  /** Who is in which group. */
  readonly groups: GroupBook;
  readonly #broker: Broker;
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
    this.#broker = broker;
    this.#history = history;
    this.#prefix = options.channelPrefix ?? "";
    this.#names = {
      fold: options.foldUsernames ?? false,
      bare: this.#prefix === "" && broker.kind === "redis",
    };
    this.#appender = new Appender(broker, history, options.metrics);
    this.receipts = new Receipts(broker, this.#prefix);
    this.#unacked = options.unacked;
    const { groups = NO_GROUPS, maxGroupUsers = 10_000, maxFanoutBytes = 64 * 1024 ** 2, metrics } = options;
    const shared = { prefix: this.#prefix, names: this.#names, maxGroupUsers, maxFanoutBytes, metrics };
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
    const { redisUrl, channelPrefix = "" } = options;
    if (channelPrefix !== "" && prefix.parse(channelPrefix) === undefined) {
      throw new ConfigError([`channelPrefix must be ${prefix.expects}: correct it, or leave it out`]);
    }
    const address = redisUrl ? parseRedisUrl(redisUrl) : undefined;
    const fault = address && databaseFault(address, channelPrefix);
    if (fault) {
      throw new ConfigError([`redisUrl ${fault.replace("USERWIRE_CHANNEL_PREFIX", "channelPrefix")}`]);
    }
    const faultOfTls = address && tlsFault(address, options.redisTls ?? {});
    if (faultOfTls) throw new ConfigError([`redisTls${faultOfTls}`]);
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

  /** Whether messages are kept for users who are away. */
  get keepsHistory(): boolean {
    return this.#history.limits.count > 0;
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
    const { id, line = this.line(), traceparent, ...appendOptions } = options;
    const outgoing = outgoingMessage(payloadFrom(message), checkedId(id), { traceparent });
    const bytes = outgoing.head.length + outgoing.tail.length;
    const size = Math.max(1, Math.min(PORTION_SENDS, Math.floor(PORTION_BYTES / bytes)));
    const channels = usernames.map((username) => this.channel(username));
    const sending: Promise<PromiseSettledResult<SendResult>[]>[] = [];
    for (let at = 0; at < channels.length; at += size) {
      const portion = channels.slice(at, at + size);
      const send = () => this.#appender.appendToAll(portion, outgoing, appendOptions);
      sending.push(line.run(send, portion.length * bytes, portion.length));
    }
    return sending.length === 1 ? await sending[0]! : (await Promise.all(sending)).flat();
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

  /**
   * The broker's channel of a user.
   * @throws {InvalidUsernameError}
   */
  channel(username: string): string {
    return channelOf(parseUsername(username, this.#names), this.#prefix);
  }

  /** What the numbers are: sockets, or nodes that hold at least one of the user's. */
  get counted(): "sockets" | "nodes" {
    return this.#broker.counted;
  }

  /** Whether the user has a socket anywhere. To send, send: this answer may be stale by the time it is read. */
  async isOnline(username: string): Promise<boolean> {
    return await this.count(username) > 0;
  }

  /** How many sockets the user has, over all nodes; or how many nodes, see `counted`. */
  async count(username: string): Promise<number> {
    return (await this.#broker.counts([this.channel(username)]))[0]!;
  }

  /** The same for each of the users, in one round trip. Keys are the names as they were asked for. */
  async online(usernames: readonly string[]): Promise<Map<string, number>> {
    const counts = await this.#broker.counts(usernames.map((username) => this.channel(username)));
    return new Map(usernames.map((username, i) => [username, counts[i]!]));
  }

  /**
   * What is kept of a user's messages.
   * @param options.after Sequence number after which to begin. @default 0
   * @param options.limit At most so many messages. @default 100
   */
  async history(username: string, options: { after?: number; limit?: number } = {}): Promise<HistoryPage> {
    return await readHistory(this.#history, this.channel(username), options);
  }

  /**
   * Closes every connection of a user, on all nodes, or those that the order says.
   * @returns How many connections the order reached, or how many nodes, see `counted`.
   */
  async closeConnections(username: string, order: CloseOrder): Promise<number> {
    return await this.#broker.publish(this.channel(username), formatCloseOrder(order));
  }

  /**
   * A user's connections on all nodes, as they are now.
   * @param options.timeoutMs How long answers are waited for. @default 2000
   * @throws {BrokerUnavailableError}
   */
  async connections(username: string, options: { timeoutMs?: number } = {}): Promise<Connections> {
    const history = this.keepsHistory ? this.#history : undefined;
    return await findConnections({ ...this.#askAt(username), history }, options.timeoutMs);
  }

  /**
   * Closes one connection of a user, on whichever node it is.
   * @param options.timeoutMs How long answers are waited for. @default 2000
   * @throws {BrokerUnavailableError}
   */
  async closeConnection(
    username: string,
    close: CloseOne,
    options: { timeoutMs?: number } = {},
  ): Promise<ConnectionClosed> {
    return await closeConnection(this.#askAt(username), close, options.timeoutMs);
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

  #askAt(username: string) {
    return { broker: this.#broker, receipts: this.receipts, channel: this.channel(username) };
  }

  #unackedSend({ unackedMs, traceparent }: SendOptions, group?: string): UnackedSend | undefined {
    if (unackedMs === undefined) return undefined;
    const { keepsHistory } = this;
    return new UnackedSend(this.#unacked, { unackedMs, keepsHistory, group, traceparent });
  }
}
