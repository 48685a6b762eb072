/** What was not as usual, and when: it says which answers can be compared, and which messages may have come twice. */
import type { Accepted, Handed } from "./book.ts";
import { Spans } from "./spans.ts";

/** A subscription that was replaced may be there beside the new one for so long. */
export const CALM_BEFORE_MS = 500;
/** A client may learn so much later than Redis that its connection is gone. */
export const CALM_AFTER_MS = 500;

/** When something was sent, on the ledger's clock. */
export type Sent = Pick<Accepted, "triedMs" | "answeredMs" | "tries">;

export class Circumstances {
  readonly nowMs: () => number;
  /** When each user's client was not open. */
  readonly breaks = new Map<string, Spans>();
  /** When something cut subscriptions, until all was well again. */
  readonly disturbances = new Spans();
  /** When Redis lost its memory, or what it took last. */
  readonly losses = new Spans();
  /** When it may have thrown away any key. */
  readonly evictions = new Spans();

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  /** Whether nothing was cut around a send. */
  isCalm({ triedMs, answeredMs }: Sent): boolean {
    return this.disturbances.touching(triedMs - CALM_BEFORE_MS, answeredMs + CALM_AFTER_MS) === 0;
  }

  /** Whether the client of a user was open around a send. */
  isThere(user: string, { triedMs, answeredMs }: Sent): boolean {
    return this.breaks.get(user)!.touching(triedMs - CALM_BEFORE_MS, answeredMs + CALM_AFTER_MS) === 0;
  }

  /** Whether a key, or how far a send had come, may have been forgotten between two tries. */
  mayBeForgotten({ triedMs, answeredMs, tries }: Sent): boolean {
    return tries > 1 &&
      this.losses.touching(triedMs, answeredMs) + this.evictions.touching(triedMs, answeredMs) > 0;
  }

  /**
   * A send comes once more for each time that Redis forgot its key between two tries, and for no other reason. A key that was
   * lost was lost together with the message: so the client was told of another epoch, or led back, before it came again. A key
   * that was evicted leaves the message where it is.
   */
  excuses({ triedMs, answeredMs, tries }: Sent, copies: readonly Handed[]): boolean {
    if (tries === 1 || copies.length > tries) return false;
    if (this.evictions.touching(triedMs, answeredMs) > 0) return true;
    const losses = this.losses.touching(triedMs, answeredMs);
    if (losses === 0 || copies.length > 1 + losses) return false;
    return copies.slice(1).every(({ epoch, setBacks }, i) =>
      epoch !== copies[i]!.epoch || setBacks > copies[i]!.setBacks
    );
  }
}
