/**
 * The last append of each user that this process knows of: that it was answered, or that a client has which has left. A
 * user's keys that are put back from a copy, on a Redis that goes on, look like any others: only who remembers a later
 * append can tell. So do those on a replica that took over from a master which hung between what it wrote to a client and
 * what it wrote to the replica and to who sent the message.
 *
 * What a script is given is `<seq>.<tag>`, as the position has it: the script looks whether the position has come as far.
 * With a `!` it looks whether this very message is there, too, which costs a command where another process has appended since.
 * That is asked for where no client can tell that the message is gone: since nobody got it, or since a client reads.
 */
import { isOfEpoch } from "../protocol/envelope.ts";

/** So many users are remembered at least, and twice as many at most: who was sent to, or left, last. Some 150 bytes each. */
export const MAX_REMEMBERED = 10_000;

export class LastAppends {
  /**
   * Of the users who were sent to, or left, last, and of those before them. Nobody is taken out of either: a map that sees
   * many come and go is copied again and again, and what it was before lives until the next full collection, see `async/chain.ts`.
   */
  #latest = new Map<string, string>();
  #before: ReadonlyMap<string, string> = new Map();

  /** What a script that appends is given; "" where none is remembered. */
  of(channel: string): string {
    return this.#latest.get(channel) ?? this.#before.get(channel) ?? "";
  }

  /** What a script that reads is given; "" where none is remembered. */
  thoroughly(channel: string): string {
    const append = this.of(channel);
    return append === "" || append.endsWith("!") ? append : `${append}!`;
  }

  /**
   * An append was answered.
   * @param reached How many subscriptions got the message.
   */
  note(channel: string, seq: number, tag: string, reached: number): void {
    this.#note(channel, `${seq}.${tag}${reached === 0 ? "!" : ""}`);
  }

  /**
   * A page of them was answered.
   * @param marks As `PageReply` has them.
   */
  noteEach(channels: readonly string[], marks: string): void {
    let at = 0;
    for (const channel of channels) {
      const space = marks.indexOf(" ", at);
      let end = space < 0 ? marks.length : space;
      const mark = marks.slice(at, end);
      const isToNobody = marks.startsWith(" !", end);
      if (isToNobody) end += 2;
      at = end + 1;
      if (mark !== "-") this.#note(channel, isToNobody ? `${mark}!` : mark);
    }
  }

  /**
   * A client has left that was handed this message. Nobody compares its tag before it returns, and then the message that
   * took its place may have left the history, too.
   */
  noteLeft(channel: string, seq: number, tag: string): void {
    const [known, knownTag = ""] = this.of(channel).split(".");
    // What is known of another epoch may be later.
    if (knownTag !== "" && (!isOfEpoch(tag, knownTag) || Number(known) >= seq)) return;
    this.#note(channel, `${seq}.${tag}!`);
  }

  #note(channel: string, append: string): void {
    if (this.#latest.size >= MAX_REMEMBERED && !this.#latest.has(channel)) {
      this.#before = this.#latest;
      this.#latest = new Map();
    }
    this.#latest.set(channel, append);
  }
}
