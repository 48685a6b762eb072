/**
 * A subscription that goes to another broker when its channel does. What it reports is one story: lost when it has to go,
 * restored when it is there, each once.
 */
import { backoffMs } from "../async/backoff.ts";
import { sleep } from "../async/sleep.ts";
import type { Log } from "../log/log.ts";
import { BrokerUnavailableError } from "../protocol/errors.ts";
import { slotOf } from "../redis/commands.ts";
import type { Broker, Subscriber, Subscription } from "./broker.ts";
import { Listener } from "./listener.ts";

export interface MovingContext {
  /** Where the channel belongs now. @throws {BrokerUnavailableError} */
  of(): Broker;
  /** Finds that out anew. */
  look(): Promise<void>;
  /** It is on its way (1), or no more (-1). */
  onMoving(count: 1 | -1): void;
  onClosed(): void;
  /** Has what the subscriber throws. */
  readonly log: Log | undefined;
}

const BACKOFF = { baseMs: 50, maxMs: 2_000 };
const MOVED = "Redis keeps this channel on another master now";

export class MovingSubscription implements Subscription, Subscriber {
  readonly slot: number;
  readonly #listener: Listener;
  readonly #context: MovingContext;
  /** Where it is, or goes. */
  #broker: Broker | undefined;
  #inner: Subscription | undefined;
  /** Of the subscription that it has or is about to have. */
  #isInnerLost = false;
  #isPaused = false;
  #moving: Promise<void> | undefined;
  readonly #closing = new AbortController();
  #closed: Promise<void> | undefined;

  constructor(readonly channel: string, subscriber: Subscriber, context: MovingContext) {
    this.slot = slotOf(channel);
    this.#listener = new Listener(channel, subscriber, context.log);
    this.#context = context;
  }

  /**
   * Subscribes for the first time; once more where the channel turns out to be elsewhere.
   * @throws as `Broker.subscribe`.
   */
  async open(signal: AbortSignal | undefined): Promise<void> {
    const options = signal ? { signal } : {};
    for (let isAgain = false;; isAgain = true) {
      const broker = this.#broker = this.#context.of();
      try {
        this.#inner = await broker.subscribe(this.channel, this, options);
        break;
      } catch (error) {
        if (isAgain || signal?.aborted) throw error;
        await this.#context.look();
        if (this.#context.of() === broker) throw error;
      }
    }
    // It was told to go while it came.
    this.move();
  }

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    if (!this.#closed) this.#listener.message(payload, byteLength);
  }

  lost(reason: string): void {
    this.#isInnerLost = true;
    if (this.#listener.isLost || this.#closed) return;
    this.#listener.isLost = true;
    this.#listener.lost(reason);
  }

  restored(): void {
    this.#isInnerLost = false;
    if (!this.#listener.isLost || this.#closed) return;
    this.#listener.isLost = false;
    this.#listener.restored();
  }

  /** Goes where the channel belongs now, unless it is there. */
  move(): void {
    if (!this.#inner || this.#closed || this.#moving || !this.#isElsewhere()) return;
    this.#context.onMoving(1);
    this.#moving = this.#move().finally(() => {
      this.#context.onMoving(-1);
      this.#moving = undefined;
      // It may have moved again meanwhile.
      this.move();
    });
  }

  pause(): void {
    this.#isPaused = true;
    this.#inner?.pause?.();
  }

  resume(): void {
    this.#isPaused = false;
    this.#inner?.resume?.();
  }

  close(): Promise<void> {
    return this.#closed ??= this.#close();
  }

  #isElsewhere(): boolean {
    try {
      return this.#context.of() !== this.#broker;
    } catch {
      return false; // nobody keeps it: it will be told when somebody does
    }
  }

  async #move(): Promise<void> {
    this.lost(MOVED);
    // What the old place still says counts no more: nothing of it may come behind what the new one says.
    await this.#inner!.close();
    const { signal } = this.#closing;
    for (let failures = 0; !this.#closed; failures++) {
      if (failures > 0) await sleep(backoffMs(failures, BACKOFF), signal);
      if (this.#closed) return;
      try {
        const broker = this.#broker = this.#context.of();
        this.#isInnerLost = false;
        const inner = await broker.subscribe(this.channel, this, { signal });
        if (this.#closed) return void await inner.close();
        this.#inner = inner;
        if (this.#isPaused) inner.pause?.();
        // It may have broken in the turn in which it was confirmed: then it comes back by itself.
        if (!this.#isInnerLost) this.restored();
        return;
      } catch {
        // Tried again for as long as anybody listens; the dialler has logged why.
      }
    }
  }

  async #close(): Promise<void> {
    this.#context.onClosed();
    this.#closing.abort(new BrokerUnavailableError("The subscription was closed"));
    await this.#moving;
    await this.#inner?.close();
  }
}
