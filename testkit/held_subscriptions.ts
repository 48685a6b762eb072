/**
 * Subscriptions of the broker in memory that are confirmed when the test says so: with Redis that is a moment which
 * nobody can hold, and much may happen in it.
 *
 *     using subscriptions = new HeldSubscriptions();
 *     const opening = openClient(service.socketUrl("alice"));
 *     await subscriptions.come(1);
 *     subscriptions.release();
 */
import type { Subscription } from "../src/broker/broker.ts";
import { MemoryBroker } from "../src/broker/memory.ts";
import { Bell } from "./deadline.ts";

type Arguments = Parameters<MemoryBroker["subscribe"]>;

export class HeldSubscriptions implements Disposable {
  /** How many were asked for, were confirmed, and were confirmed and not closed since. */
  asked = 0;
  confirmed = 0;
  open = 0;
  readonly #hears: boolean;
  readonly #held = Promise.withResolvers<void>();
  readonly #bell = new Bell();
  readonly #subscribe = MemoryBroker.prototype.subscribe;

  /**
   * Holds what is asked for from now on, until `release`.
   * @param options.hear Whether messages come meanwhile, as they may before Redis' answer does. @default false
   */
  constructor(options: { hear?: boolean } = {}) {
    this.#hears = options.hear ?? false;
    const subscribe = (broker: MemoryBroker, args: Arguments) => this.#hold(broker, args);
    MemoryBroker.prototype.subscribe = function (...args: Arguments) {
      return subscribe(this, args);
    };
  }

  /** Resolves when so many were asked for. */
  async come(count: number): Promise<void> {
    const seen = () => `${this.asked} came`;
    await this.#bell.until(() => this.asked >= count, `${count} subscriptions`, undefined, seen);
  }

  /** Confirms them all, and whatever comes from now on. */
  release(): void {
    this.#held.resolve();
  }

  /** Resolves when so many were confirmed, and so many of them are not closed. */
  async are(confirmed: number, open: number): Promise<void> {
    const isSo = () => this.confirmed === confirmed && this.open === open;
    const seen = () => `${this.confirmed} were, and ${this.open} are open`;
    await this.#bell.until(isSo, `${confirmed} to be confirmed and ${open} of them open`, undefined, seen);
  }

  [Symbol.dispose](): void {
    MemoryBroker.prototype.subscribe = this.#subscribe;
    this.release();
  }

  async #hold(broker: MemoryBroker, args: Arguments): Promise<Subscription> {
    this.asked++;
    this.#bell.ring();
    const subscribe = () => this.#subscribe.apply(broker, args);
    if (!this.#hears) await this.#held.promise;
    const subscription = await subscribe();
    if (this.#hears) await this.#held.promise;
    this.confirmed++;
    this.open++;
    this.#bell.ring();
    let isClosed = false;
    return {
      ...subscription,
      close: () => {
        if (!isClosed) this.open--;
        isClosed = true;
        this.#bell.ring();
        return subscription.close();
      },
    };
  }
}
