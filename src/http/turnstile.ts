/**
 * The last step before a handshake is answered. A client that resets its connection just then costs a file descriptor
 * for good: Deno can't write the answer, and keeps what it would have been upgraded to (`op_http_upgrade_websocket_next`
 * waits for itself). Nothing in JavaScript lets go of it. It can only be made rare, and be counted:
 *
 * - A client that has left before its turn is not answered; the request's signal says so.
 * - Few handshakes of one address are between answer and `open` at a time. The first ones that are lost show there, and
 *   with them not those that came at the same moment.
 * - From then on handshakes of that address wait for a random time, longer for each one lost: whoever resets can't know
 *   when, and most of the waits end with the news that the client has left.
 */

/** Handshakes of one address that are answered and not open yet. */
const AT_ONCE = 2;
/** For so long an address counts as one whose clients leave. */
const WARY_MS = 60_000;
/** Longest wait of an address whose clients leave, how much longer it is for each lost descriptor, and its bound. */
const WAIT_MS = 400;
const WAIT_PER_LOSS_MS = 50;
const MAX_WAIT_MS = 2_000;
/** Addresses that are remembered for their clients that left, beside those that cost a descriptor. */
const MAX_PLACES = 20_000;

interface Place {
  /** Answered and not open yet. */
  answered: number;
  /** Those whose turn has not come. */
  readonly waiting: (() => void)[];
  /** Descriptors that were lost. */
  lost: number;
  /** When a client left last. */
  leftMs: number;
  /** When a client flooded last. */
  floodMs: number;
}

/** A handshake that may be answered; its turn is over when it is disposed of, unless there is a socket to watch. */
export interface Turn extends Disposable {
  /**
   * The turn lasts until the socket is open.
   * @param onLost The client had left: the socket will never open, and Deno never lets go of it. Called before it counts.
   */
  watch(socket: WebSocket, onLost: () => void): void;
}

export class Turnstile {
  readonly #places = new Map<string, Place>();
  readonly #onLoss: (place: string) => void;

  /** @param onLoss A descriptor is lost, because of a client there. */
  constructor(onLoss: (place: string) => void) {
    this.#onLoss = onLoss;
  }

  /**
   * Resolves when a handshake from there may be answered.
   * @throws The signal's reason, when the client leaves before.
   */
  async pass(place: string, signal: AbortSignal): Promise<Turn> {
    const waitMs = this.#waitOf(place);
    if (waitMs > 0) await this.#pause(waitMs, signal);
    const entry = this.#entryOf(place);
    while (entry.answered >= AT_ONCE && !signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      entry.waiting.push(resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      const at = entry.waiting.indexOf(resolve);
      if (at >= 0) entry.waiting.splice(at, 1);
      // Whoever waits beside those that were lost is no better than they.
      const moreMs = waitMs > 0 ? 0 : this.#waitOf(place);
      if (moreMs > 0) await this.#pause(moreMs, signal);
    }
    if (signal.aborted) {
      this.left(place);
      // The place of one who left is the next one's.
      if (entry.answered < AT_ONCE) entry.waiting.shift()?.();
      signal.throwIfAborted();
    }
    entry.answered++;
    // It may have been forgotten meanwhile.
    this.#places.set(place, entry);
    return this.#turn(place, entry, signal);
  }

  /** A client floods: the next ones of its address wait, and are not heard out when they are refused. */
  flooded(place: string): void {
    this.left(place);
    this.#entryOf(place).floodMs = performance.now();
  }

  /** Whether a client of that address flooded not long ago. */
  hasFlooded(place: string): boolean {
    return performance.now() - (this.#places.get(place)?.floodMs ?? -Infinity) < WARY_MS;
  }

  /** A client left in the middle of its handshake: the next ones of its address wait. */
  left(place: string): void {
    const entry = this.#entryOf(place);
    entry.leftMs = performance.now();
    this.#places.delete(place);
    this.#places.set(place, entry);
    if (this.#places.size <= MAX_PLACES) return;
    for (const [oldest, { answered, lost, waiting }] of this.#places) {
      if (answered > 0 || lost > 0 || waiting.length > 0) continue;
      this.#places.delete(oldest);
      return;
    }
  }

  #turn(place: string, entry: Place, signal: AbortSignal): Turn {
    let isOver = false;
    const end = () => {
      if (isOver) return;
      isOver = true;
      entry.answered--;
      entry.waiting.shift()?.();
      const isCalm = entry.lost === 0 && performance.now() - entry.leftMs > WARY_MS;
      if (isCalm && entry.answered === 0 && entry.waiting.length === 0) this.#places.delete(place);
    };
    let isWatched = false;
    return {
      watch: (socket, onLost) => {
        isWatched = true;
        socket.addEventListener("open", end, { once: true });
        socket.addEventListener("error", end, { once: true });
        // Fires when the answer could not be written, and at no other time.
        signal.addEventListener("abort", () => {
          if (isOver) return;
          entry.lost++;
          this.left(place);
          onLost();
          this.#onLoss(place);
          // Those that came at the same moment wait like those that come now.
          for (const wake of entry.waiting.splice(0)) wake();
          end();
        }, { once: true });
      },
      [Symbol.dispose]: () => {
        if (!isWatched) end();
      },
    };
  }

  #entryOf(place: string): Place {
    const entry = this.#places.get(place) ??
      { answered: 0, waiting: [], lost: 0, leftMs: -Infinity, floodMs: -Infinity };
    this.#places.set(place, entry);
    return entry;
  }

  /** A random time, and none for an address whose clients stay. */
  #waitOf(place: string): number {
    const entry = this.#places.get(place);
    if (!entry) return 0;
    const isWary = performance.now() - entry.leftMs < WARY_MS;
    const longestMs = Math.min(MAX_WAIT_MS, (isWary ? WAIT_MS : 0) + entry.lost * WAIT_PER_LOSS_MS);
    return Math.random() * longestMs;
  }

  /** Waits, unless the client leaves. */
  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const over = Promise.withResolvers<void>();
    const timer = setTimeout(over.resolve, ms);
    signal.addEventListener("abort", () => over.resolve(), { once: true });
    await over.promise;
    clearTimeout(timer);
  }
}
