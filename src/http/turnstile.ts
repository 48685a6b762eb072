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
import type { Handshake } from "../connection.ts";

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
  /** Those whose turn has not come, first come first. */
  readonly waiting: Set<Waiter>;
  /** Descriptors that were lost. */
  lost: number;
  /** When a client left last. */
  leftMs: number;
  /** When a client flooded last. */
  floodMs: number;
}

interface Waiter {
  /** Whether it has waited for a random time: nobody does so twice. */
  hasPaused: boolean;
  /** @param why Its turn has come; it is to wait for a random time; or its client has left. */
  wake(why: "turn" | "pause" | "left"): void;
}

/**
 * A handshake that may be answered. Whoever has it tells when its socket is open, or when nobody waits for that any more:
 * until then it stands in the way of others from its address.
 */
export class Turn implements Handshake {
  readonly #onEnd: () => void;
  readonly #onLoss: () => void;
  #isOver = false;
  /** Whether it can't be lost any more. */
  #isSafe = false;

  constructor(onEnd: () => void, onLoss: () => void) {
    this.#onEnd = onEnd;
    this.#onLoss = onLoss;
  }

  opened(): void {
    this.#isSafe = true;
    this.end();
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onEnd();
  }

  /** The client had left: the socket will never open, and Deno never lets go of it. */
  lost(): void {
    if (this.#isSafe) return;
    this.#isSafe = true;
    this.#onLoss();
    this.end();
  }
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
  pass(place: string, signal: AbortSignal): Turn | Promise<Turn> {
    const entry = this.#entryOf(place);
    // Nearly always nobody is in the way, and nothing has to be awaited.
    if (entry.answered < AT_ONCE && entry.waiting.size === 0 && isUnsuspected(entry) && !signal.aborted) {
      entry.answered++;
      return this.#turn(place, entry);
    }
    return this.#wait(place, entry, signal);
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
      if (answered > 0 || lost > 0 || waiting.size > 0) continue;
      this.#places.delete(oldest);
      return;
    }
  }

  async #wait(place: string, entry: Place, signal: AbortSignal): Promise<Turn> {
    const ms = waitOf(entry);
    const waiter: Waiter = { hasPaused: ms > 0, wake: () => {} };
    if (ms > 0) await pause(ms, signal);
    while (!signal.aborted) {
      // Those that wait come first.
      if (entry.answered < AT_ONCE && entry.waiting.size === 0) {
        entry.answered++;
        break;
      }
      const { promise, resolve } = Promise.withResolvers<Parameters<Waiter["wake"]>[0]>();
      waiter.wake = resolve;
      entry.waiting.add(waiter);
      const leave = () => waiter.wake("left");
      signal.addEventListener("abort", leave);
      const why = await promise;
      signal.removeEventListener("abort", leave);
      entry.waiting.delete(waiter);
      if (why === "turn") {
        if (!signal.aborted) break;
        this.#passOn(place, entry);
      }
      if (why === "pause") {
        waiter.hasPaused = true;
        await pause(waitOf(entry), signal);
      }
    }
    if (signal.aborted) {
      this.left(place);
      signal.throwIfAborted();
    }
    // It may have been forgotten meanwhile.
    this.#places.set(place, entry);
    return this.#turn(place, entry);
  }

  #turn(place: string, entry: Place): Turn {
    return new Turn(() => this.#passOn(place, entry), () => {
      entry.lost++;
      this.left(place);
      this.#onLoss(place);
      // Whoever waits beside those that were lost is no better than they.
      for (const waiter of entry.waiting) if (!waiter.hasPaused) waiter.wake("pause");
    });
  }

  /** A turn is over: it goes to the next one, so that nobody can come in between. */
  #passOn(place: string, entry: Place): void {
    const next = entry.waiting.values().next().value;
    if (next) {
      entry.waiting.delete(next);
      return next.wake("turn");
    }
    entry.answered--;
    if (entry.answered === 0 && isUnsuspected(entry)) this.#places.delete(place);
  }

  #entryOf(place: string): Place {
    let entry = this.#places.get(place);
    if (!entry) {
      entry = { answered: 0, waiting: new Set(), lost: 0, leftMs: -Infinity, floodMs: -Infinity };
      this.#places.set(place, entry);
    }
    return entry;
  }
}

/** Whether nothing is known against an address, or not any more. */
function isUnsuspected({ lost, leftMs }: Place): boolean {
  return lost === 0 && (leftMs === -Infinity || performance.now() - leftMs > WARY_MS);
}

/** A random time, and none for an address whose clients stay. */
function waitOf(entry: Place): number {
  if (isUnsuspected(entry)) return 0;
  const isWary = performance.now() - entry.leftMs < WARY_MS;
  return Math.random() * Math.min(MAX_WAIT_MS, (isWary ? WAIT_MS : 0) + entry.lost * WAIT_PER_LOSS_MS);
}

/** Waits, unless the client leaves. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const over = Promise.withResolvers<void>();
  const timer = setTimeout(over.resolve, ms);
  signal.addEventListener("abort", () => over.resolve(), { once: true });
  await over.promise;
  clearTimeout(timer);
}
