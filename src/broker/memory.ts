/**
 * The broker inside one process: for a service of a single node, for development and for tests.
 *
 * It reaches nobody outside this process, and keeps nothing. Set `REDIS_URL` as soon as there is a second
 * node.
 */
import { Buffer } from "node:buffer";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { Listener } from "./listener.ts";

export class MemoryBroker implements Broker {
  readonly kind = "memory";
  readonly counted = "sockets";
  readonly #channels = new Map<string, Set<Listener>>();
  readonly #log: Log | undefined;
  #closed = false;

  constructor(options: { log?: Log } = {}) {
    this.#log = options.log;
  }

  unavailable(): string | undefined {
    return this.#closed ? "The broker is closed" : undefined;
  }

  // deno-lint-ignore require-await -- async so that a fault is a rejection, as the contract says
  async subscribe(
    channel: string,
    subscriber: Subscriber,
    options: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    this.#assertOpen();
    options.signal?.throwIfAborted();
    // One entry per subscription, even when the same subscriber comes twice.
    const entry = new Listener(channel, subscriber, this.#log);
    const entries = this.#channels.get(channel);
    if (entries) entries.add(entry);
    else this.#channels.set(channel, new Set([entry]));
    return {
      channel,
      close: () => {
        const entries = this.#channels.get(channel);
        if (entries?.delete(entry) && entries.size === 0) this.#channels.delete(channel);
        return Promise.resolve();
      },
    };
  }

  // deno-lint-ignore require-await -- as above
  async publish(channel: string, payload: string): Promise<number> {
    this.#assertOpen();
    const entries = this.#channels.get(channel);
    if (!entries) return 0;
    const byteLength = Buffer.byteLength(payload);
    let reached = 0;
    // A copy, so that a subscription that joins during the hand-over is not counted for a payload sent before.
    for (const entry of [...entries]) {
      if (!entries.has(entry)) continue;
      reached++;
      entry.message(payload, byteLength);
    }
    return reached;
  }

  // deno-lint-ignore require-await -- as above
  async counts(channels: readonly string[]): Promise<number[]> {
    this.#assertOpen();
    return channels.map((channel) => this.#channels.get(channel)?.size ?? 0);
  }

  close(): Promise<void> {
    this.#closed = true;
    // Emptied one by one: a publish under way looks into them.
    for (const entries of this.#channels.values()) entries.clear();
    this.#channels.clear();
    return Promise.resolve();
  }

  #assertOpen(): void {
    if (this.#closed) throw new BrokerUnavailableError("The broker is closed");
  }
}
