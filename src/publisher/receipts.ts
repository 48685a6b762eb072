/**
 * Receipts: how a sender learns that clients have a message, when another node may hold their sockets.
 *
 * A sender that waits listens on a channel of its own and puts its name into the envelope; the connection whose
 * client acknowledges publishes there. One subscription per process, opened when the first sender waits.
 *
 * Where the broker counts nodes, the sender can't know from its count how many sockets there are to wait for. There
 * each node says, on the same channel, to how many it handed the message; of a broadcast, which every node gets, always. So
 * these kinds of payloads come:
 *
 *     key connection       the client of this connection has the message
 *     "handed" key number  one node handed the message to so many sockets
 *
 * Here, too, come the answers of a user's connections to who asks for them (`connections.ts`): of each by itself, or of all
 * that have one subscription together:
 *
 *     "state" key states   JSON, a list of `ConnectionState`
 *
 * The key is the sender's name for the message, a number: a node that does not know a later kind finds no such message.
 */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import type { Broker, Subscription } from "../broker/broker.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { ConnectionState } from "./connection_state.ts";

/** A sender's wait for receipts of one message. */
export interface Wait extends Disposable {
  /** Goes into the envelope. */
  readonly receipt: string;
  /**
   * Resolves as soon as all sockets have acknowledged, or when time is up.
   * @param reached What the broker counted: sockets or nodes.
   * @returns How many sockets have acknowledged, and of how many; the latter is missing when a node has not said how many
   * it handed the message to.
   */
  acked(reached: number, timeoutMs: number): Promise<{ acked: number; sockets?: number }>;
  /** Resolves with true as soon as one connection has answered, or with false when time is up. */
  taken(timeoutMs: number): Promise<boolean>;
  /**
   * Resolves as soon as all nodes have said to how many sockets they handed the message, or when time is up.
   * @returns How many sockets that are; or how many nodes have said so, when it is not all of them.
   */
  handed(nodes: number, timeoutMs: number): Promise<{ sockets: number } | { heard: number }>;
  /**
   * Resolves as soon as so many have said what they are, or the one that is looked for, or when time is up.
   * @param asked Of those, what the broker counted. @param until Id of the connection that is looked for.
   * @returns What connections have said, in how many answers.
   */
  presented(
    options: { asked: number; until?: string | undefined; timeoutMs: number },
  ): Promise<{ states: ConnectionState[]; answers: number }>;
}

interface Waiting {
  /** Those that have acknowledged. */
  readonly connections: Set<string>;
  /** What connections have said of themselves, and in how many answers. */
  readonly states: ConnectionState[];
  answers: number;
  /** Nodes that have said to how many sockets they handed the message, and how many that are together. */
  nodes: number;
  sockets: number;
  onNews: () => void;
}

/** While a master of the broker changes, who waits can't be reached for a moment, and waits for two seconds. */
const TRIES = 5;
const BACKOFF = { baseMs: 50, maxMs: 800 };

const HANDED = "handed";
const STATE = "state";

export class Receipts {
  readonly #broker: Broker;
  readonly #prefix: string;
  readonly #name = crypto.randomUUID();
  readonly #waiting = new Map<string, Waiting>();
  /** How many sockets of this node were handed a message just now, by receipt and user: one to a group comes to each. */
  readonly #handed = new Map<string, number>();
  /** What connections of this node say just now, by who asked. */
  readonly #presented = new Map<string, ConnectionState[]>();
  #subscription: Promise<Subscription> | undefined;
  #count = 0;
  readonly #closing = new AbortController();

  /** @param channelPrefix Put before the channel's name, as before usernames. */
  constructor(broker: Broker, channelPrefix: string) {
    this.#broker = broker;
    this.#prefix = `${channelPrefix}${RESERVED_PREFIX}receipts:`;
  }

  /**
   * Begins to listen for receipts of a message that is about to be sent.
   * @throws {BrokerUnavailableError}
   */
  async wait(): Promise<Wait> {
    await this.#listen();
    const key = String(++this.#count);
    const counts = { answers: 0, nodes: 0, sockets: 0 };
    const waiting: Waiting = { connections: new Set(), states: [], ...counts, onNews: () => {} };
    const { connections, states } = waiting;
    this.#waiting.set(key, waiting);
    return {
      receipt: `${this.#name}.${key}`,
      acked: async (reached, timeoutMs) => {
        const sockets = () => this.#socketsOf(waiting, reached);
        await until(waiting, () => connections.size >= (sockets() ?? Infinity), timeoutMs);
        const known = sockets();
        return { ...(known !== undefined && { sockets: known }), acked: connections.size };
      },
      handed: async (nodes, timeoutMs) => {
        await until(waiting, () => waiting.nodes >= nodes, timeoutMs);
        return waiting.nodes >= nodes ? { sockets: waiting.sockets } : { heard: waiting.nodes };
      },
      presented: async ({ asked, until: conn, timeoutMs }) => {
        const isFound = () => conn !== undefined && states.some((state) => state.conn === conn);
        await until(waiting, () => waiting.answers >= asked || isFound(), timeoutMs);
        return { states, answers: waiting.answers };
      },
      taken: async (timeoutMs) => {
        await until(waiting, () => connections.size > 0, timeoutMs);
        return connections.size > 0;
      },
      [Symbol.dispose]: () => void this.#waiting.delete(key),
    };
  }

  /**
   * Tells the sender that a connection's client has the message.
   * @throws {BrokerUnavailableError}
   */
  async confirm(receipt: string, connection: string): Promise<void> {
    await this.#tell(receipt, (key) => `${key} ${connection}`);
  }

  /**
   * One more socket of this node was handed the message. Where the broker counts nodes, tells the sender how many of
   * this user's were, once for all of them.
   * @throws {BrokerUnavailableError}
   */
  async handed(receipt: string, username: string): Promise<void> {
    if (this.#broker.counted === "sockets") return;
    const both = `${receipt} ${username}`;
    const before = this.#handed.get(both);
    this.#handed.set(both, (before ?? 0) + 1);
    if (before !== undefined) return;
    // The broker hands a message to all of them in one turn.
    await Promise.resolve();
    const sockets = this.#handed.get(both);
    this.#handed.delete(both);
    await this.report(receipt, sockets!);
  }

  /**
   * Tells the sender to how many sockets this node has handed it.
   * @throws {BrokerUnavailableError}
   */
  async report(receipt: string, sockets: number): Promise<void> {
    await this.#tell(receipt, (key) => `${HANDED} ${key} ${sockets}`);
  }

  /**
   * A connection of this node says what it is to who asked. Where the broker counts nodes all of the user's go in one answer.
   * @throws {BrokerUnavailableError}
   */
  async present(asker: string, state: ConnectionState): Promise<void> {
    const before = this.#presented.get(asker);
    if (before) return void before.push(state);
    const states = [state];
    if (this.#broker.counted === "nodes") {
      this.#presented.set(asker, states);
      // As in `handed`.
      await Promise.resolve();
      this.#presented.delete(asker);
    }
    await this.#tell(asker, (key) => `${STATE} ${key} ${JSON.stringify(states)}`);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    const subscription = await this.#subscription?.catch(() => undefined);
    await subscription?.close();
  }

  /** How many sockets a message was handed to; undefined while a node has not said so. */
  #socketsOf({ nodes, sockets }: Waiting, reached: number): number | undefined {
    if (this.#broker.counted === "nodes" && nodes < reached) return undefined;
    // Among the sockets that a broker counts may be nodes whose subscriptions are shared.
    return reached - nodes + sockets;
  }

  /** Tries again where it is known that the sender has not been told: what may have come is not said a second time. */
  async #tell(receipt: string, word: (key: string) => string): Promise<void> {
    const [name, key] = receipt.split(".") as [string, string];
    const [channel, text] = [this.#prefix + name, word(key)];
    for (let failures = 0;; failures++) {
      const isLast = failures === TRIES || this.#closing.signal.aborted;
      try {
        if (await this.#broker.publish(channel, text) > 0 || isLast) return;
      } catch (error) {
        if (isLast || !(error instanceof BrokerUnavailableError) || error.outcome !== "refused") throw error;
      }
      await sleep(backoffMs(failures, BACKOFF), this.#closing.signal);
    }
  }

  #take(payload: string): void {
    const [first, ...rest] = payload.split(" ") as [string, string];
    const kind = first === HANDED || first === STATE ? first : "";
    const [key, ...said] = (kind === "" ? [first, ...rest] : rest) as [string, string];
    const waiting = this.#waiting.get(key);
    if (!waiting) return; // its time is up
    if (kind === HANDED) {
      waiting.nodes++;
      waiting.sockets += Number(said[0]);
    } else if (kind === STATE) {
      waiting.answers++;
      waiting.states.push(...JSON.parse(said.join(" ")));
    } else {
      waiting.connections.add(said[0]);
    }
    waiting.onNews();
  }

  #listen(): Promise<Subscription> {
    return this.#subscription ??= this.#broker.subscribe(this.#prefix + this.#name, {
      message: (payload) => this.#take(String(payload)),
      // Where one is missed the wait ends by its timeout, and the answer has fewer acknowledged than sockets.
      lost() {},
      restored() {},
    }).catch((error: unknown) => {
      this.#subscription = undefined;
      throw error;
    });
  }
}

/** Resolves when it is so, which only news can bring about, or when time is up. */
async function until(waiting: Waiting, isSo: () => boolean, timeoutMs: number): Promise<void> {
  if (isSo()) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  waiting.onNews = () => isSo() && resolve();
  const timer = setTimeout(resolve, timeoutMs);
  await promise;
  clearTimeout(timer);
}
