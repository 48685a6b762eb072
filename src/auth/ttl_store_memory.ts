/** The store inside one process, for a service of a single node. It forgets everything when the process ends. */
import type { Broker } from "../broker/broker.ts";
import { LATER_S, type Moment, type MomentNotice, type Notice, type TtlStore } from "./ttl_store.ts";

/** How many entries are set between two looks for those whose time is up. */
const SWEEP_EVERY = 256;

export class MemoryTtlStore implements TtlStore {
  readonly #entries = new Map<string, { text: string; endsMs: number }>();
  readonly #broker: Broker;
  #sets = 0;

  /** @param broker Where notices are published; stays the caller's to close. */
  constructor(broker: Broker) {
    this.#broker = broker;
  }

  /** How many are held, those included whose time is up. */
  get size(): number {
    return this.#entries.size;
  }

  async set(name: string, text: string, ttlMs: number, notice: Notice): Promise<void> {
    this.#set(name, text, ttlMs);
    await this.#broker.publish(notice.channel, notice.payload);
  }

  async setMax(name: string, moment: Moment, ttlMs: number, notice: MomentNotice): Promise<number> {
    const nowS = Date.now() / 1_000;
    const known = Number(this.#get(name) ?? -Infinity);
    const raised = "at" in moment
      ? Math.max(known, moment.at)
      : Math.max(known + LATER_S, nowS + moment.aheadS);
    const payload = notice.head + raised + notice.tail;
    const leftMs = ttlMs + Math.max(0, raised - nowS) * 1_000;
    await this.set(name, String(raised), leftMs, { channel: notice.channel, payload });
    return raised;
  }

  getMany(names: readonly string[]): Promise<(string | undefined)[]> {
    return Promise.resolve(names.map((name) => this.#get(name)));
  }

  setUnique(name: string, text: string, ttlMs: number): Promise<void> {
    this.#set(name, text, ttlMs);
    return Promise.resolve();
  }

  getUnique(name: string): Promise<string | undefined> {
    return Promise.resolve(this.#get(name));
  }

  takeUnique(name: string): Promise<string | undefined> {
    const text = this.#get(name);
    this.#entries.delete(name);
    return Promise.resolve(text);
  }

  now(): Promise<number> {
    return Promise.resolve(Date.now() / 1_000);
  }

  #set(name: string, text: string, ttlMs: number): void {
    // Not the time of day: were that set back, nothing would end, and nothing be swept away.
    const nowMs = performance.now();
    if (++this.#sets % SWEEP_EVERY === 0) {
      for (const [name, { endsMs }] of this.#entries) if (endsMs <= nowMs) this.#entries.delete(name);
    }
    this.#entries.set(name, { text, endsMs: nowMs + ttlMs });
  }

  #get(name: string): string | undefined {
    const entry = this.#entries.get(name);
    return entry && entry.endsMs > performance.now() ? entry.text : undefined;
  }
}
