/**
 * The backend's single way to send. The HTTP API uses it, and a backend written in Deno can import it and skip the
 * HTTP:
 *
 * ```ts ignore
 * import { Publisher } from "../userwire/src/publisher.ts";
 *
 * await using publisher = await Publisher.open({ redisUrl: "redis://127.0.0.1:6379" });
 * const { sockets } = await publisher.send("alice", { order: 7 });
 * if (sockets === 0) console.log("alice is offline");
 * ```
 *
 * It never asks "is she there?" before it sends: the answer could be stale one moment later. The reply of the
 * publish itself says how many sockets were reached.
 */
import { createHash } from "node:crypto";
import { type EngineOptions, openEngine } from "../engine/engine.ts";
import type { Broker } from "../broker/broker.ts";
import {
  BrokerUnavailableError,
  ConfigError,
  IdempotencyConflictError,
  InvalidMessageError,
  UserOfflineError,
} from "../protocol/errors.ts";
import type { Appended, AppendOptions, Draft, Inbox } from "../history/history.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { CloseOrder } from "../protocol/close_codes.ts";
import { formatCloseOrder, formatEnvelope, frameOf, type Payload } from "../protocol/envelope.ts";
import { channelOf, type NameRules, parseUsername } from "../protocol/username.ts";
import { payloadFrom, type Sendable } from "./payload.ts";
import { Receipts, type Wait } from "./receipts.ts";
import { type Line, Turns } from "../async/turns.ts";
import { prefix } from "../config/kinds.ts";
import { databaseFault, parseRedisUrl } from "../redis/address.ts";

/**
 * A number of sockets, or, with shared subscriptions, of the instances that hold at least one: never one under the
 * other's name. Where receipts are waited for, the sockets are known there too, once each instance has said its own.
 */
export type Count = { sockets: number; nodes?: never } | { nodes: number; sockets?: number };

/** What became of a message. */
export type SendResult = Count & {
  /** Id of the message, the same that clients see in its `m` frame. */
  id: string;
  /** Place in the user's inbox; missing when no history is kept. */
  seq?: number;
  epoch?: string;
  /** How many sockets' clients have acknowledged it; only when that was waited for. */
  acked?: number;
  /** This is the result of an earlier send with the same idempotency key; nothing was sent now. */
  repeated?: true;
};

/** How a publisher turns a username into a channel. */
export interface PublisherOptions {
  /** Put before each username. @default "" */
  channelPrefix?: string;
  /** Lower-case usernames, as `USERWIRE_USERNAME_CASE=lower` does. @default false */
  foldUsernames?: boolean;
  /** Where sends are counted. */
  metrics?: Metrics;
}

export interface SendOptions {
  /** Id of the message: 1–64 of letters, digits and `._:-`. @default a random UUID */
  id?: string;
  /** How long the message is kept for a user who is away, in milliseconds. @default the history's */
  ttlMs?: number;
  /** Only send when the user is online. @default false */
  expectOnline?: boolean;
  /** Sends with the same key within five minutes are one: 1–128 visible ASCII characters. */
  idempotencyKey?: string;
  /** Wait so many milliseconds for the clients to acknowledge; needs a history. */
  waitAckMs?: number;
}

/** What may be said of a message to many users. */
export type ManySendOptions =
  & Pick<SendOptions, "id" | "ttlMs" | "expectOnline">
  /** Tells each of the sends from others, see `claim`. */
  & Pick<AppendOptions, "idempotency">;

/** A stretch of a user's history. */
export interface History {
  epoch: string;
  /** Numbers of the first and last message there are; 0 when there is none. */
  first: number;
  last: number;
  /** `m` frames as JSON text, oldest first. */
  frames: string[];
  /** Tag of the message after which they begin; "" when it is not known any more. */
  afterTag: string;
}

/**
 * A message to many users goes out in pages of so many of them and so many bytes: Redis does nothing else meanwhile, for
 * some milliseconds.
 */
const PAGE_SENDS = 100;
const PAGE_BYTES = 128 * 1024;

const MESSAGE_ID = /^[\w.:-]{1,64}$/;
const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,128}$/;

export class Publisher implements AsyncDisposable {
  readonly receipts: Receipts;
  readonly #broker: Broker;
  readonly #inbox: Inbox;
  readonly #prefix: string;
  readonly #names: NameRules;
  readonly #metrics: Metrics | undefined;
  readonly #turns = new Turns();
  #closeBackbone: () => Promise<void> = () => Promise.resolve();

  /** A publisher on a broker and an inbox that stay the caller's to close. */
  constructor(broker: Broker, inbox: Inbox, options: PublisherOptions = {}) {
    this.#broker = broker;
    this.#inbox = inbox;
    this.#prefix = options.channelPrefix ?? "";
    this.#names = {
      fold: options.foldUsernames ?? false,
      bare: this.#prefix === "" && broker.kind === "redis",
    };
    this.#metrics = options.metrics;
    this.receipts = new Receipts(broker, { channelPrefix: this.#prefix });
  }

  /**
   * A publisher with connections of its own, for a backend. Its `history` and `subscriptions` must be those of the
   * service. Without `redisUrl` it reaches nobody but itself.
   * @throws {ConfigError} when the prefix can't be used, or the URL names a database without one.
   * @throws {Error} when Redis answers and refuses the login. What it said is the cause.
   */
  static async open(options: EngineOptions & PublisherOptions): Promise<Publisher> {
    const { redisUrl, channelPrefix = "" } = options;
    if (channelPrefix !== "" && prefix.parse(channelPrefix) === undefined) {
      throw new ConfigError([`channelPrefix must be ${prefix.expects}: correct it, or leave it out`]);
    }
    const fault = redisUrl && databaseFault(parseRedisUrl(redisUrl), channelPrefix);
    if (fault) {
      throw new ConfigError([`redisUrl ${fault.replace("USERWIRE_CHANNEL_PREFIX", "channelPrefix")}`]);
    }
    const backbone = openEngine(options);
    const attempt = await backbone.firstAttempt(options.redisTimeoutMs ?? 3_000);
    if (attempt.outcome === "refused") {
      await backbone.close();
      throw new Error(`Can't open a publisher: ${attempt.reason}`, { cause: attempt.detail });
    }
    const publisher = new Publisher(backbone.broker, backbone.inbox, options);
    publisher.#closeBackbone = backbone.close;
    return publisher;
  }

  /** Whether messages are kept for users who are away. */
  get keepsHistory(): boolean {
    return this.#inbox.limits.count > 0;
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
    const { channel, id, payload, appendOptions } = this.#checked(username, message, options);
    const { waitAckMs } = options;
    if (waitAckMs === undefined) return this.#append(channel, draftOf(payload, id), appendOptions);
    using wait = await this.receipts.wait();
    const result = await this.#append(channel, draftOf(payload, id, wait), appendOptions);
    if (result.repeated) return result;
    return { ...result, ...await wait.acked(result.nodes ?? result.sockets, waitAckMs) };
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
    const { id, line = this.line(), ...appendOptions } = options;
    const draft = draftOf(payloadFrom(message), checkedId(id));
    const bytes = draft.head.length + draft.tail.length;
    const size = Math.max(1, Math.min(PAGE_SENDS, Math.floor(PAGE_BYTES / bytes)));
    const channels = usernames.map((username) => this.channel(username));
    const sending = [];
    for (let at = 0; at < channels.length; at += size) {
      const page = channels.slice(at, at + size);
      const send = () => this.#appendToAll(page, draft, appendOptions);
      sending.push(line.run(send, page.length * bytes, page.length));
    }
    return (await Promise.all(sending)).flat();
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
    const why = this.#broker.unavailable();
    if (why !== undefined) throw new BrokerUnavailableError(why);
    let isOurs: boolean;
    try {
      isOurs = await this.#inbox.claim(this.#prefix, { key, fingerprint });
    } catch (error) {
      if (!(error instanceof BrokerUnavailableError)) throw error;
      // Whether it was noted or not, the sends have not begun: that is what the caller has to know.
      throw new BrokerUnavailableError(error.message, { outcome: "refused", cause: error });
    }
    if (isOurs) return;
    throw new IdempotencyConflictError("This idempotency key was used for another call: use a new key");
  }

  /**
   * Takes back what `claim` noted, when nothing was sent: another call may have the key. Where that can't be noted now,
   * the claim ends by itself.
   */
  async release(key: string, fingerprint: string): Promise<void> {
    try {
      await this.#inbox.release(this.#prefix, { key, fingerprint });
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

  /** What the numbers are: sockets, or instances that hold at least one of the user's. */
  get counted(): "sockets" | "nodes" {
    return this.#broker.counted;
  }

  /** Whether the user has a socket anywhere. To send, send: this answer may be stale by the time it is read. */
  async isOnline(username: string): Promise<boolean> {
    return await this.count(username) > 0;
  }

  /** How many sockets the user has, over all instances; or how many instances, see `counted`. */
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
  async history(username: string, options: { after?: number; limit?: number } = {}): Promise<History> {
    const { after = 0, limit = 100 } = options;
    const channel = this.channel(username);
    // Whoever only looks at users makes no keys for those who never were.
    let stretch = await this.#inbox.since(channel, after, limit, { peek: true, proof: after > 0 });
    const { epoch, last, afterTag } = stretch;
    const items = [...stretch.items];
    // What has left is passed over, so one look may find less than there is.
    while (items.length < limit && stretch.through < stretch.last && stretch.epoch === epoch) {
      stretch = await this.#inbox.since(channel, stretch.through, limit - items.length, { peek: true });
      if (stretch.epoch === epoch) items.push(...stretch.items);
    }
    return {
      epoch,
      first: items[0]?.seq ?? 0,
      last,
      frames: items.map(({ envelope }) => frameOf(envelope)),
      afterTag,
    };
  }

  /**
   * Closes every connection of a user, on all instances, or those that the order says.
   * @returns How many were told, or how many instances, see `counted`.
   */
  async closeConnections(username: string, order: CloseOrder): Promise<number> {
    return await this.#broker.publish(this.channel(username), formatCloseOrder(order));
  }

  /** Closes what `open` opened. */
  async close(): Promise<void> {
    await this.receipts.close();
    await this.#closeBackbone();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @throws what is wrong with a send before anything was sent; it is counted. */
  #checked(
    username: string,
    message: Sendable,
    options: SendOptions,
  ): { channel: string; id: string; payload: Payload; appendOptions: AppendOptions } {
    try {
      const payload = payloadFrom(message);
      const { ttlMs, expectOnline, idempotencyKey, waitAckMs } = options;
      if (waitAckMs !== undefined && !this.keepsHistory) {
        throw new InvalidMessageError(
          "Receipts need a history: set USERWIRE_HISTORY above 0, or don't wait for them",
        );
      }
      return {
        channel: this.channel(username),
        id: checkedId(options.id),
        payload,
        appendOptions: {
          ...(ttlMs !== undefined && { ttlMs }),
          ...(expectOnline && { expectOnline }),
          ...(idempotencyKey !== undefined && { idempotency: idempotencyOf(idempotencyKey, payload) }),
        },
      };
    } catch (error) {
      this.#count("refused");
      throw error;
    }
  }

  async #append(channel: string, draft: Draft, options: AppendOptions): Promise<SendResult> {
    let outcome: keyof Metrics["sends"] = "refused";
    try {
      // While subscriptions are being restored the number would be too small.
      const why = this.#broker.unavailable();
      if (why !== undefined) throw new BrokerUnavailableError(why);
      const startMs = performance.now();
      const appended: Appended = this.keepsHistory || options.idempotency
        ? await this.#inbox.append(channel, draft, options)
        // Nothing to store and nothing to remember: the answer of a plain publish says it all.
        : published(draft, await this.#publish(channel, draft, options), options);
      this.#metrics?.onAnswer((performance.now() - startMs) / 1_000);
      outcome = outcomeOf(appended);
      return this.#resultOf(appended);
    } catch (error) {
      if (error instanceof BrokerUnavailableError) outcome = "unavailable";
      throw error;
    } finally {
      this.#count(outcome);
    }
  }

  /** One step for all of them: a page of a message to many. */
  async #appendToAll(
    channels: readonly string[],
    draft: Draft,
    options: AppendOptions,
  ): Promise<PromiseSettledResult<SendResult>[]> {
    if (channels.length === 1) return await Promise.allSettled([this.#append(channels[0]!, draft, options)]);
    let appended: PromiseSettledResult<Appended>[];
    try {
      const why = this.#broker.unavailable();
      if (why !== undefined) throw new BrokerUnavailableError(why);
      const startMs = performance.now();
      appended = await this.#inbox.appendToAll(channels, draft, options);
      this.#metrics?.onAnswer((performance.now() - startMs) / 1_000);
    } catch (reason) {
      appended = channels.map(() => ({ status: "rejected", reason }));
    }
    return appended.map((one) => {
      if (one.status === "rejected") {
        this.#count(one.reason instanceof BrokerUnavailableError ? "unavailable" : "refused");
        return one;
      }
      this.#count(outcomeOf(one.value));
      try {
        return { status: "fulfilled", value: this.#resultOf(one.value) };
      } catch (reason) {
        return { status: "rejected", reason };
      }
    });
  }

  /** @throws {UserOfflineError | IdempotencyConflictError} when nothing was sent. */
  #resultOf(appended: Appended): SendResult {
    if (appended.outcome === "offline") {
      throw new UserOfflineError(`No socket is open for this user: nothing was sent`);
    }
    if (appended.outcome === "conflict") {
      throw new IdempotencyConflictError("This idempotency key was used for another message: use a new key");
    }
    const { outcome, id, position, reached } = appended;
    const count: Count = this.counted === "sockets" ? { sockets: reached } : { nodes: reached };
    return { id, ...position, ...count, ...(outcome === "repeated" && { repeated: true }) };
  }

  /** Somebody else has found that a message can't be sent. */
  countRefused(): void {
    this.#count("refused");
  }

  #count(outcome: keyof Metrics["sends"]): void {
    if (this.#metrics) this.#metrics.sends[outcome]++;
  }

  #publish(channel: string, { head, tail }: Draft, { expectOnline = false }: AppendOptions): Promise<number> {
    return this.#broker.publish(channel, head + tail, { onlyIfHeard: expectOnline });
  }
}

function published({ id }: Draft, reached: number, { expectOnline }: AppendOptions): Appended {
  if (reached === 0 && expectOnline) return { outcome: "offline" };
  return { outcome: "appended", id, position: undefined, reached };
}

function outcomeOf(appended: Appended): keyof Metrics["sends"] {
  switch (appended.outcome) {
    case "appended":
      if (appended.reached > 0) return "reached";
      return appended.position === undefined ? "offline" : "stored";
    case "conflict":
      return "refused";
    default:
      return appended.outcome;
  }
}

/** The id of the message. @throws {InvalidMessageError} when it is none. */
function checkedId(id: string = crypto.randomUUID()): string {
  if (!MESSAGE_ID.test(id)) {
    throw new InvalidMessageError("A message id must have 1 to 64 letters, digits or . _ : -");
  }
  return id;
}

function draftOf(payload: Payload, id: string, wait?: Wait): Draft {
  return { id, ...formatEnvelope(payload, { id, ts: Date.now(), receipt: wait?.receipt }) };
}

function idempotencyOf(key: string, payload: Payload): { key: string; fingerprint: string } {
  if (!IDEMPOTENCY_KEY.test(key)) {
    throw new InvalidMessageError(
      "An idempotency key must have 1 to 128 visible ASCII characters without spaces",
    );
  }
  const hash = createHash("sha256").update(payload.kind);
  return {
    key,
    fingerprint: hash.update(payload.kind === "binary" ? payload.bytes : payload.text).digest("base64url"),
  };
}
