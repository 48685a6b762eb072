/**
 * The last append of each user that this process was answered. A user's keys that are put back from a copy, on a Redis that
 * goes on, look like any others: only who remembers a later append can tell.
 */

/** Users that are remembered: those who were sent to last. Some 150 bytes each. */
export const MAX_REMEMBERED = 10_000;

export class LastAppends {
  /** In the order of their last appends: `<seq>.<tag>`, as the position has it. */
  readonly #appends = new Map<string, string>();

  /** `<seq>.<tag>` of the channel's last append; "" where none is remembered. */
  of(channel: string): string {
    return this.#appends.get(channel) ?? "";
  }

  /** An append was answered. */
  note(channel: string, seq: number, tag: string): void {
    this.#appends.delete(channel);
    this.#appends.set(channel, `${seq}.${tag}`);
    if (this.#appends.size > MAX_REMEMBERED) this.#appends.delete(this.#appends.keys().next().value!);
  }
}
