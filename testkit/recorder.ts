/**
 * A subscriber that writes down what it is told, and can be waited for.
 */
import { assertEquals } from "@std/assert";
import type { Subscriber } from "../src/broker/broker.ts";
import { Bell } from "./deadline.ts";

export class Recorder implements Subscriber {
  /** Payloads in the order they came. */
  readonly payloads: (string | Uint8Array)[] = [];
  /** Their sizes as reported, in bytes. */
  readonly byteLengths: number[] = [];
  /** Calls of `lost` and `restored` in the order they came. */
  readonly changes: ("lost" | "restored")[] = [];
  /** What `lost` was told. */
  readonly reasons: string[] = [];
  readonly #bell = new Bell();
  readonly #onMessage: ((payload: string | Uint8Array, recorder: Recorder) => void) | undefined;

  /** @param onMessage Runs in every call of `message`, after it was written down; may throw. */
  constructor(onMessage?: (payload: string | Uint8Array, recorder: Recorder) => void) {
    this.#onMessage = onMessage;
  }

  message(payload: string | Uint8Array, byteLength: number): void {
    this.payloads.push(payload);
    this.byteLengths.push(byteLength);
    this.#bell.ring();
    this.#onMessage?.(payload, this);
  }

  lost(why: string): void {
    this.reasons.push(why);
    this.changes.push("lost");
    this.#bell.ring();
  }

  restored(): void {
    this.changes.push("restored");
    this.#bell.ring();
  }

  /** Resolves when `count` payloads, or more, have come. */
  async received(count: number, ms?: number): Promise<void> {
    await this.#bell.until(() => this.payloads.length >= count, `${count} payloads`, ms, () => {
      return `${this.payloads.length} came, and ${this.#told()}`;
    });
  }

  /** Resolves when the subscription is lost. */
  async isLost(ms?: number): Promise<void> {
    await this.#bell.until(
      () => this.changes.at(-1) === "lost",
      "the subscription to be lost",
      ms,
      () => this.#told(),
    );
  }

  /** Resolves when the subscription was lost at least once and is restored. */
  async isRestored(ms?: number): Promise<void> {
    await this.#bell.until(
      () => this.changes.at(-1) === "restored",
      "the subscription to be restored",
      ms,
      () => this.#told(),
    );
  }

  #told(): string {
    return `it was told "${this.changes}"`;
  }

  /** Fails unless `lost` and `restored` came in turns, beginning with `lost`. */
  assertPairs(): void {
    assertEquals(this.changes, this.changes.map((_, i) => i % 2 === 0 ? "lost" : "restored"));
  }
}
