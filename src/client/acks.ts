/**
 * When to tell the server what the application has: a second after it got something, or after 32 messages, or at
 * once when a sender waits; but never more than 20 times a second, because the server closes clients that send more
 * than it allows. An acknowledgement stands for everything before it, so none is missing for being held back.
 */

const DELAY_MS = 1_000;
const BATCH = 32;
const SPACING_MS = 50;

export class Acks {
  readonly #send: (seq: number) => void;
  #seq = 0;
  /** Messages handed over and not acknowledged. */
  #count = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #dueAt = Infinity;
  #sentAt = -Infinity;

  /** @param send Sends an acknowledgement, or drops it when there is no connection. */
  constructor(send: (seq: number) => void) {
    this.#send = send;
  }

  /** The application has the message with this number. `urgent`: its sender waits. */
  handed(seq: number, { urgent }: { urgent: boolean }): void {
    this.#seq = seq;
    this.#count++;
    const now = performance.now();
    const isDue = urgent || this.#count >= BATCH;
    const dueAt = isDue ? Math.max(now, this.#sentAt + SPACING_MS) : now + DELAY_MS;
    if (dueAt >= this.#dueAt) return;
    clearTimeout(this.#timer);
    this.#dueAt = dueAt;
    if (dueAt <= now) this.flush();
    else this.#timer = setTimeout(() => this.flush(), dueAt - now);
  }

  /** Sends what is held back. */
  flush(): void {
    if (this.#count === 0) return;
    this.reset();
    this.#sentAt = performance.now();
    this.#send(this.#seq);
  }

  /** Forgets what is held back: it was for a connection that has ended. */
  reset(): void {
    clearTimeout(this.#timer);
    this.#dueAt = Infinity;
    this.#count = 0;
  }
}
