/**
 * Delivery of what comes once or never: messages without a sequence number, and all those of a raw client. They go out
 * in the order in which they came. What the client does not take at once waits in the broker, where the subscription can
 * be paused; where it can't the client is closed, and where the history depends on the subscription the message is lost.
 */
import type { Subscription } from "../broker/broker.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import type { Output } from "./output.ts";

/** Whose messages they are. */
export interface BestEffortOwner {
  /** The client takes no more now: `resume` when it does again. */
  onFull(): void;
  close(reason: CloseReason): void;
}

type Payload = string | Uint8Array<ArrayBuffer>;

export class BestEffort {
  readonly #owner: BestEffortOwner;
  readonly #output: Output;
  readonly #maxBytes: number;
  #state: "held" | "flowing" | "paused" | "stopped" = "held";
  #subscription: Subscription | undefined;
  /** What came while held or paused; undefined while nothing did. */
  #waiting: [payload: Payload, byteLength: number][] | undefined;
  #waitingBytes = 0;
  #pausedTicks = 0;
  /** The number heard last: raw clients can't be told what is missing, so the log is. */
  #heard = 0;

  /** @param maxBytes May wait here, but for a single message that is larger. */
  constructor(owner: BestEffortOwner, output: Output, maxBytes: number) {
    this.#owner = owner;
    this.#output = output;
    this.#maxBytes = maxBytes;
  }

  /** Whether the subscription waits for the client. */
  get isPaused(): boolean {
    return this.#state === "paused";
  }

  /** Bytes that wait here. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /**
   * The client can be written to: sends what has waited.
   * @param subscription May be paused; undefined for one that a replay reads on.
   */
  start(subscription: Subscription | undefined): void {
    this.#subscription = subscription;
    this.#flow();
  }

  /** Sends a message when it is its turn. @param seq Its number, 0 without one. */
  message(payload: Payload, byteLength: number, seq: number): void {
    if (seq > 0) {
      if (this.#heard > 0 && seq > this.#heard + 1) this.#output.miss(seq - this.#heard - 1);
      this.#heard = seq;
    }
    this.#pass(payload, byteLength);
  }

  /** The client takes more again. */
  resume(): void {
    if (this.isPaused) this.#flow();
  }

  /** Called once a second: for how many seconds it has been paused at each look. */
  tick(): number {
    return this.#pausedTicks = this.isPaused ? this.#pausedTicks + 1 : 0;
  }

  /** Sends nothing more. */
  stop(): void {
    this.#state = "stopped";
    this.#waiting = undefined;
  }

  #pass(payload: Payload, byteLength: number): void {
    if (this.#state === "flowing") this.#push(payload, byteLength);
    else this.#wait(payload, byteLength);
  }

  #wait(payload: Payload, byteLength: number): void {
    const waiting = this.#waiting ??= [];
    waiting.push([payload, byteLength]);
    this.#waitingBytes += byteLength;
    if (this.#waitingBytes > this.#maxBytes && waiting.length > 1) this.#owner.close(CLOSE.slow);
  }

  #push(payload: Payload, byteLength: number): void {
    if (this.#output.pass(payload, byteLength)) return;
    if (!this.#subscription) {
      // The history needs the subscription no less than before: only this message is lost.
      this.#output.miss(1);
    } else if (this.#subscription.pause) {
      // This message waits here, what follows waits in Redis.
      this.#subscription.pause();
      this.#state = "paused";
      this.#owner.onFull();
      this.#wait(payload, byteLength);
    } else {
      this.#owner.close(CLOSE.slow);
    }
  }

  /** Sends what has waited, as far as the client takes it. */
  #flow(): void {
    if (this.#isStopped) return;
    this.#state = "flowing";
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    this.#waitingBytes = 0;
    for (const [payload, byteLength] of waiting) {
      if (this.#isStopped) return;
      this.#pass(payload, byteLength);
    }
    if (!this.#isStopped && !this.isPaused) this.#subscription?.resume?.();
  }

  get #isStopped(): boolean {
    return this.#state === "stopped";
  }
}
