/** What is asked of users and of their connections, and done to those; all of it goes by the channel of the user. */
import type { Broker } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import type { CloseOrder } from "../protocol/close_codes.ts";
import { formatCloseOrder } from "../protocol/envelope.ts";
import { channelOf, type NameRules, parseUsername } from "../protocol/username.ts";
import {
  closeConnection,
  type CloseOne,
  type ConnectionClosed,
  type Connections,
  findConnections,
} from "./connections.ts";
import {
  beginHistory,
  type HistoryPage,
  type HistoryParts,
  type HistoryRange,
  readHistory,
} from "./history_page.ts";
import { Receipts } from "./receipts.ts";

interface UsersParts {
  readonly broker: Broker;
  readonly history: History;
  /** Put before each username. */
  readonly prefix: string;
  readonly names: NameRules;
}

export class Users {
  readonly receipts: Receipts;
  readonly #parts: UsersParts;

  protected constructor(parts: UsersParts) {
    this.#parts = parts;
    this.receipts = new Receipts(parts.broker, parts.prefix);
  }

  /** Whether messages are kept for users who are away. */
  get keepsHistory(): boolean {
    return this.#parts.history.limits.count > 0;
  }

  /**
   * The broker's channel of a user.
   * @throws {InvalidUsernameError}
   */
  channel(username: string): string {
    return channelOf(parseUsername(username, this.#parts.names), this.#parts.prefix);
  }

  /** What the numbers are: sockets, or nodes that hold at least one of the user's. */
  get counted(): "sockets" | "nodes" {
    return this.#parts.broker.counted;
  }

  /** Whether the user has a socket anywhere. To send, send: this answer may be stale by the time it is read. */
  async isOnline(username: string): Promise<boolean> {
    return await this.count(username) > 0;
  }

  /** How many sockets the user has, over all nodes; or how many nodes, see `counted`. */
  async count(username: string): Promise<number> {
    return (await this.#parts.broker.counts([this.channel(username)]))[0]!;
  }

  /** The same for each of the users, in one round trip. Keys are the names as they were asked for. */
  async online(usernames: readonly string[]): Promise<Map<string, number>> {
    const counts = await this.#parts.broker.counts(usernames.map((username) => this.channel(username)));
    return new Map(usernames.map((username, i) => [username, counts[i]!]));
  }

  /**
   * What is kept of a user's messages.
   * @param options.after Sequence number after which to begin. @default 0
   * @param options.limit At most so many messages. @default 100
   */
  async history(username: string, options: HistoryRange = {}): Promise<HistoryPage> {
    return await readHistory(this.#parts.history, this.channel(username), options);
  }

  /** The same, part by part: of a long history no more is in memory than was asked for. */
  async historyInParts(username: string, options: HistoryRange = {}): Promise<HistoryParts> {
    return await beginHistory(this.#parts.history, this.channel(username), options);
  }

  /**
   * Closes every connection of a user, on all nodes, or those that the order says.
   * @returns How many connections the order reached, or how many nodes, see `counted`.
   */
  async closeConnections(username: string, order: CloseOrder): Promise<number> {
    return await this.#parts.broker.publish(this.channel(username), formatCloseOrder(order));
  }

  /**
   * A user's connections on all nodes, as they are now.
   * @param options.timeoutMs How long answers are waited for. @default 2000
   * @throws {BrokerUnavailableError}
   */
  async connections(username: string, options: { timeoutMs?: number } = {}): Promise<Connections> {
    const history = this.keepsHistory ? this.#parts.history : undefined;
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

  #askAt(username: string) {
    return { broker: this.#parts.broker, receipts: this.receipts, channel: this.channel(username) };
  }
}
