/** Why sends were refused: each reason with how often, and no more reasons than can be read. */
import type { Refusal } from "./http_answer.ts";

const MOST = 10;

export interface Refused {
  count: number;
  readonly refusal: Refusal;
}

export class Refusals {
  readonly #kinds = new Map<string, Refused>();

  add(refusal: Refusal): void {
    const { status, code } = refusal;
    // A reason may name a user, or a moment.
    const shown = this.#kinds.size < MOST || this.#kinds.has(keyOf(refusal))
      ? refusal
      : { status, code, reason: "for further reasons" };
    const known = this.#kinds.get(keyOf(shown));
    if (known) known.count++;
    else this.#kinds.set(keyOf(shown), { count: 1, refusal: shown });
  }

  /** In the order in which they first came. */
  get list(): readonly Refused[] {
    return [...this.#kinds.values()];
  }
}

function keyOf({ status, code, reason }: Refusal): string {
  return `${status} ${code} ${reason}`;
}
