/** One subscriber of a channel. What it throws harms no other subscriber and no later payload: the log has it. */
import type { Log } from "../log/log.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Subscriber } from "./broker.ts";

export class Listener implements Subscriber {
  /** Whether payloads may be missed now; kept by the caller of `lost` and `restored`. */
  isLost = false;
  readonly #channel: string;
  readonly #subscriber: Subscriber;
  readonly #log: Log | undefined;

  constructor(channel: string, subscriber: Subscriber, log: Log | undefined) {
    this.#channel = channel;
    this.#subscriber = subscriber;
    this.#log = log;
  }

  message(payload: string | Uint8Array<ArrayBuffer>, byteLength: number): void {
    try {
      this.#subscriber.message(payload, byteLength);
    } catch (error) {
      this.#failed(error);
    }
  }

  lost(reason: string): void {
    try {
      this.#subscriber.lost(reason);
    } catch (error) {
      this.#failed(error);
    }
  }

  restored(): void {
    try {
      this.#subscriber.restored();
    } catch (error) {
      this.#failed(error);
    }
  }

  #failed(error: unknown): void {
    this.#log?.error("subscriber failed", { channel: this.#channel, reason: messageOf(error) });
  }
}
