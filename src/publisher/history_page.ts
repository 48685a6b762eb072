/** What is kept of a user's messages, as backends get it. */
import type { History, Page } from "../history/history.ts";
import { frameOf } from "../protocol/envelope.ts";

/** A page of a user's history: with finished frames in place of envelopes. */
export interface HistoryPage extends Pick<Page, "epoch" | "last" | "afterTag"> {
  /** Number of the first message on the page; 0 when there is none. */
  readonly first: number;
  /** `m` frames as JSON text, oldest first. */
  readonly frames: string[];
}

/** Reads it. It writes nothing. */
export async function readHistory(
  history: History,
  channel: string,
  { after = 0, limit = 100 }: { after?: number; limit?: number },
): Promise<HistoryPage> {
  // Without `peek` the look would make a key for a user who never was there.
  let page = await history.since(channel, after, limit, { peek: true, proof: after > 0 });
  const { epoch, last, afterTag } = page;
  const items = [...page.items];
  // A look counts messages that have left towards its limit, so it may find less than there is.
  while (items.length < limit && page.upTo < page.last && page.epoch === epoch) {
    page = await history.since(channel, page.upTo, limit - items.length, { peek: true });
    if (page.epoch === epoch) items.push(...page.items);
  }
  return {
    epoch,
    first: items[0]?.seq ?? 0,
    last,
    frames: items.map(({ envelope }) => frameOf(envelope)),
    afterTag,
  };
}
