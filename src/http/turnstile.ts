/**
 * The last step before a handshake is answered. A client that resets its connection just then costs a file descriptor
 * for good: Deno can't write the answer, and keeps what it would have been upgraded to (`op_http_upgrade_websocket_next`
 * waits for itself). Nothing in JavaScript frees it. It can only be made rare, and be counted:
 *
 * - A client that has left before its turn is not answered; the request's signal says so.
 * - Few handshakes of one address are between answer and `open` at a time. The first ones that are lost show there, and
 *   with them not those that came at the same moment. An address whose handshakes open may have more at a time, one for
 *   so many that opened that those it could lose at once are few among them.
 * - From then on handshakes of that address wait for a random time, longer for each one lost: an attacker that resets
 *   can't know when, and most of the waits end with the news that the client has left.
 */
import { sleep } from "../async/sleep.ts";
import type { Handshake } from "../session/websocket_transport.ts";

/** Handshakes of one address that are answered and not open yet, one more for each so many that opened, and at most. */
const AT_ONCE = 2;
const OPENED_PER_MORE = 20;
const MAX_AT_ONCE = 64;
/** For so long an address counts as one whose clients leave. */
const WARY_MS = 60_000;
/** Longest wait of an address whose clients leave, how much longer it is for each lost descriptor, and its bound. */
const WAIT_MS = 400;
const WAIT_PER_LOSS_MS = 50;
const MAX_WAIT_MS = 2_000;
/** Addresses that are remembered, beside those that cost a descriptor. */
const MAX_ADDRESSES = 20_000;
/** Addresses that are looked at, when one too many is remembered, for one to forget. */
const FORGET_TRIES = 10;

interface Address {
  /** Answered and not open yet. */
  answered: number;
  /** Those whose turn has not come, first come first. */
  readonly waiting: Set<Waiter>;
  /** Handshakes that opened since a client left. */
  opened: number;
  /** Descriptors that were lost. */
  lost: number;
  /** When a client left last. */
  leftMs: number;
  /** When a client flooded last. */
  floodMs: number;
}

interface Waiter {
  /** Whether it has waited for a random time: each does so once. */
  readonly hasPaused: boolean;
  /** Its turn has come; or it is to wait for a random time. */
  wake(order: "turn" | "pause"): void;
}

/**
 * A handshake that may be answered. Its holder reports when its socket is open, or when nobody waits for that any more:
 * until then it stands in the way of others from its address.
 */
export class Turn implements Handshake {
  readonly #turnstile: Turnstile;
  readonly #addressKey: string;
  readonly #entry: Address;
  #isOver = false;
  /** Whether it can't be lost any more. */
  #isSafe = false;

  constructor(turnstile: Turnstile, addressKey: string, entry: Address) {
    this.#turnstile = turnstile;
    this.#addressKey = addressKey;
    this.#entry = entry;
  }

  opened(): void {
    this.#isSafe = true;
    this.#entry.opened++;
    this.end();
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#turnstile.onTurnOver(this.#addressKey, this.#entry);
  }

  /** The client had left: the socket will never open, and Deno never frees it. */
  lost(): void {
    if (this.#isSafe) return;
    this.#isSafe = true;
    this.#turnstile.onTurnLost(this.#addressKey, this.#entry);
    this.end();
  }
}

export class Turnstile {
  readonly #addresses = new Map<string, Address>();
  readonly #onLoss: (addressKey: string) => void;

  /** @param onLoss A descriptor is lost, because of a client there. */
  constructor(onLoss: (addressKey: string) => void) {
    this.#onLoss = onLoss;
  }

  /** How many addresses are remembered. */
  get size(): number {
    return this.#addresses.size;
  }

  /**
   * Resolves when a handshake from there may be answered.
   * @throws The signal's reason, when the client leaves before.
   */
  pass(addressKey: string, signal: AbortSignal): Turn | Promise<Turn> {
    const entry = this.#entryOf(addressKey);
    // Nearly always nobody is in the way, and nothing has to be awaited.
    if (entry.waiting.size === 0 && hasRoom(entry) && isUnsuspected(entry) && !signal.aborted) {
      entry.answered++;
      return new Turn(this, addressKey, entry);
    }
    return this.#wait(addressKey, entry, signal);
  }

  /** A client floods: the next ones of its address wait, and are not heard out when they are refused. */
  flooded(addressKey: string): void {
    this.left(addressKey);
    this.#entryOf(addressKey).floodMs = performance.now();
  }

  /** Whether a client of that address flooded not long ago. */
  hasFlooded(addressKey: string): boolean {
    return performance.now() - (this.#addresses.get(addressKey)?.floodMs ?? -Infinity) < WARY_MS;
  }

  /** A client left in the middle of its handshake: the next ones of its address wait. */
  left(addressKey: string): void {
    const entry = this.#entryOf(addressKey);
    entry.leftMs = performance.now();
    entry.opened = 0;
    this.#addresses.delete(addressKey);
    this.#addresses.set(addressKey, entry);
  }

  async #wait(addressKey: string, entry: Address, signal: AbortSignal): Promise<Turn> {
    let hasPaused = !isUnsuspected(entry);
    if (hasPaused) await pauseFor(entry, signal);
    while (!signal.aborted) {
      // Those that wait come first.
      if (entry.waiting.size === 0 && hasRoom(entry)) {
        entry.answered++;
        break;
      }
      const { promise, resolve } = Promise.withResolvers<"turn" | "pause">();
      entry.waiting.add({ hasPaused, wake: resolve });
      // That its client has left is seen when its turn has come: a listener costs more than most turns take.
      if (await promise === "turn") {
        if (!signal.aborted) break;
        this.onTurnOver(addressKey, entry);
      } else {
        hasPaused = true;
        await pauseFor(entry, signal);
      }
    }
    if (signal.aborted) {
      this.left(addressKey);
      signal.throwIfAborted();
    }
    // It may have been forgotten meanwhile.
    this.#addresses.set(addressKey, entry);
    return new Turn(this, addressKey, entry);
  }

  /** Told by a turn whose descriptor is lost. */
  onTurnLost(addressKey: string, entry: Address): void {
    entry.lost++;
    this.left(addressKey);
    this.#onLoss(addressKey);
    // Those that wait beside lost ones are no better.
    for (const waiter of entry.waiting) {
      if (waiter.hasPaused) continue;
      entry.waiting.delete(waiter);
      waiter.wake("pause");
    }
  }

  /** Told by a turn that is over: it goes to who waits at once, so that nobody can come in between. */
  onTurnOver(addressKey: string, entry: Address): void {
    entry.answered--;
    for (const next of entry.waiting) {
      if (!hasRoom(entry)) return;
      entry.waiting.delete(next);
      entry.answered++;
      next.wake("turn");
    }
    if (entry.answered === 0 && entry.opened === 0 && isUnsuspected(entry)) {
      this.#addresses.delete(addressKey);
    }
  }

  #entryOf(addressKey: string): Address {
    let entry = this.#addresses.get(addressKey);
    if (!entry) {
      entry = { answered: 0, waiting: new Set(), opened: 0, lost: 0, leftMs: -Infinity, floodMs: -Infinity };
      this.#addresses.set(addressKey, entry);
      this.#forgetOldest();
    }
    return entry;
  }

  #forgetOldest(): void {
    let tries = FORGET_TRIES;
    for (const [addressKey, entry] of this.#addresses) {
      if (this.#addresses.size <= MAX_ADDRESSES || tries-- === 0) return;
      this.#addresses.delete(addressKey);
      const isNeeded = entry.answered > 0 || entry.waiting.size > 0 || entry.lost > 0;
      // To the end: it is not looked at again before all others.
      if (isNeeded) this.#addresses.set(addressKey, entry);
    }
  }
}

/** Whether one more may be answered now. */
function hasRoom({ answered, opened }: Address): boolean {
  return answered < Math.min(MAX_AT_ONCE, AT_ONCE + Math.floor(opened / OPENED_PER_MORE));
}

/** Whether nothing is known against an address, or not any more. */
function isUnsuspected({ lost, leftMs }: Address): boolean {
  return lost === 0 && performance.now() - leftMs > WARY_MS;
}

/** Waits for a random time, unless the client leaves. */
async function pauseFor({ lost, leftMs }: Address, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const base = performance.now() - leftMs < WARY_MS ? WAIT_MS : 0;
  const ms = Math.random() * Math.min(MAX_WAIT_MS, base + lost * WAIT_PER_LOSS_MS);
  await sleep(ms, signal);
}
