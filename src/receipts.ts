/**
 * Receipts: how a sender learns that clients have a message, when another instance may hold their sockets.
 *
 * A sender that waits listens on a channel of its own and puts its name into the envelope; the connection whose
 * client acknowledges publishes there. One subscription per process, opened when the first sender waits.
 */
import type { Broker, Subscription } from "./broker/broker.ts";
import { RESERVED_PREFIX } from "./protocol.ts";

/** A sender's wait for receipts of one message. */
export interface Wait extends Disposable {
  /** Goes into the envelope. */
  readonly receipt: string;
  /** Resolves with the number of sockets that have acknowledged: as soon as all have, or when time is up. */
  acked(sockets: number, timeoutMs: number): Promise<number>;
}

interface Waiting {
  readonly connections: Set<string>;
  onAck: () => void;
}

export class Receipts {
  readonly #broker: Broker;
  readonly #prefix: string;
  readonly #name = crypto.randomUUID();
  readonly #waiting = new Map<string, Waiting>();
  #subscription: Promise<Subscription> | undefined;
  #count = 0;

  /** @param options.channelPrefix Put before the channel's name, as before usernames. */
  constructor(broker: Broker, options: { channelPrefix?: string } = {}) {
    this.#broker = broker;
    this.#prefix = `${options.channelPrefix ?? ""}${RESERVED_PREFIX}receipts:`;
  }

  /**
   * Begins to listen for receipts of a message that is about to be sent.
   * @throws {BrokerUnavailableError}
   */
  async wait(): Promise<Wait> {
    await this.#listen();
    const key = String(++this.#count);
    const waiting: Waiting = { connections: new Set(), onAck: () => {} };
    this.#waiting.set(key, waiting);
    return {
      receipt: `${this.#name}.${key}`,
      acked: async (sockets, timeoutMs) => {
        const { connections } = waiting;
        if (connections.size < sockets) {
          const { promise, resolve } = Promise.withResolvers<void>();
          waiting.onAck = () => connections.size >= sockets && resolve();
          const timer = setTimeout(resolve, timeoutMs);
          await promise;
          clearTimeout(timer);
        }
        return connections.size;
      },
      [Symbol.dispose]: () => void this.#waiting.delete(key),
    };
  }

  /**
   * Tells the sender that a connection's client has the message.
   * @throws {BrokerUnavailableError}
   */
  async confirm(receipt: string, connection: string): Promise<void> {
    const [name, key] = receipt.split(".") as [string, string];
    await this.#broker.publish(this.#prefix + name, `${key} ${connection}`);
  }

  async close(): Promise<void> {
    const subscription = await this.#subscription?.catch(() => undefined);
    await subscription?.close();
  }

  #listen(): Promise<Subscription> {
    return this.#subscription ??= this.#broker.subscribe(this.#prefix + this.#name, {
      message: (payload) => {
        const [key, connection] = String(payload).split(" ") as [string, string];
        const waiting = this.#waiting.get(key);
        waiting?.connections.add(connection);
        waiting?.onAck();
      },
      // A receipt that is missed ends in a timeout, which the sender is told.
      lost() {},
      restored() {},
    }).catch((error: unknown) => {
      this.#subscription = undefined;
      throw error;
    });
  }
}
