/** A broker that does what a test says, when the test says it: for what stands between subscribers and brokers. */
import type { Broker, Subscriber, Subscription } from "../src/broker/broker.ts";
import { BrokerUnavailableError } from "../src/protocol/errors.ts";
import { Bell } from "./deadline.ts";

/** A subscription that a stub was asked for. */
export class StubSubscription implements Subscription {
  readonly calls: string[] = [];
  readonly #broker: StubBroker;
  #closed: PromiseWithResolvers<void> | undefined;

  constructor(readonly channel: string, readonly subscriber: Subscriber, broker: StubBroker) {
    this.#broker = broker;
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  pause(): void {
    this.calls.push("pause");
  }

  resume(): void {
    this.calls.push("resume");
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = Promise.withResolvers();
      if (!this.#broker.closesSlowly) this.#closed.resolve();
    }
    this.#broker.bell.ring();
    return this.#closed.promise;
  }

  /** The broker counts it no longer. */
  isGone(): void {
    this.#closed!.resolve();
  }
}

export class StubBroker implements Broker {
  readonly kind = "stub";
  readonly counted = "sockets";
  readonly bell = new Bell();
  /** Those that were granted. */
  readonly subscriptions: StubSubscription[] = [];
  /** What the next subscribes reject with. */
  readonly refusals: Error[] = [];
  /** Subscribes wait until `grant`. */
  isSlow = false;
  /** Closed subscriptions are counted until `isGone`. */
  closesSlowly = false;
  reason: string | undefined;
  readonly published: string[] = [];
  /** What is asked of `counts`, and answered: the length of the name, unless there is something to reject with. */
  readonly asked: (readonly string[])[] = [];
  readonly faults: Error[] = [];
  isClosed = false;
  /** How often it was asked for a subscription. */
  subscribes = 0;
  readonly #waiting: PromiseWithResolvers<void>[] = [];

  unavailable(): string | undefined {
    return this.reason;
  }

  async subscribe(
    channel: string,
    subscriber: Subscriber,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Subscription> {
    this.subscribes++;
    this.bell.ring();
    if (this.isSlow) {
      const waiting = Promise.withResolvers<void>();
      this.#waiting.push(waiting);
      signal?.addEventListener("abort", () => waiting.reject(signal.reason));
      await waiting.promise;
    }
    const refusal = this.refusals.shift();
    if (refusal) throw refusal;
    const subscription = new StubSubscription(channel, subscriber, this);
    this.subscriptions.push(subscription);
    this.bell.ring();
    return subscription;
  }

  /** Lets those through that wait. */
  grant(): void {
    this.isSlow = false;
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  publish(channel: string, payload: string): Promise<number> {
    this.published.push(`${channel} ${payload}`);
    return Promise.resolve(1);
  }

  counts(channels: readonly string[]): Promise<number[]> {
    this.asked.push(channels);
    const fault = this.faults.shift();
    return fault ? Promise.reject(fault) : Promise.resolve(channels.map(({ length }) => length));
  }

  close(): Promise<void> {
    this.isClosed = true;
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new BrokerUnavailableError("The broker is closed"));
    }
    return Promise.resolve();
  }

  /** Resolves when so many subscriptions were granted. */
  async has(count: number): Promise<void> {
    await this.bell.until(() => this.subscriptions.length >= count, `${count} subscriptions`);
  }
}
