/** What is kept of a user's messages, as backends get it: whole, or part by part as it is asked for. */
import type { History, Page } from "../history/history.ts";
import { frameOf } from "../protocol/envelope.ts";

/** What was found. */
interface Found extends Pick<Page, "epoch" | "last" | "afterTag"> {
  /** Number of the first message on the page; 0 when there is none. */
  readonly first: number;
}

/** A page of a user's history: with finished frames in place of envelopes. */
export interface HistoryPage extends Found {
  /** `m` frames as JSON text, oldest first. */
  readonly frames: string[];
}

/** The same, of which no more is in memory than was asked for. */
export interface HistoryParts extends Found {
  /** Some frames at a time; reads on when they are asked for. @throws {BrokerUnavailableError} */
  readonly parts: AsyncGenerator<string[], void>;
}

/** Which part of it. */
export interface HistoryRange {
  readonly after?: number;
  readonly limit?: number;
}

/** Characters of a part, if it is more than one frame. */
const PART_LENGTH = 64 * 1024;

/** Reads it. It writes nothing. */
export async function readHistory(
  history: History,
  channel: string,
  range: HistoryRange,
): Promise<HistoryPage> {
  const { parts, ...found } = await beginHistory(history, channel, range);
  const frames: string[] = [];
  for await (const part of parts) frames.push(...part);
  return { ...found, frames };
}

/** Reads its beginning. It writes nothing. */
export async function beginHistory(
  history: History,
  channel: string,
  { after = 0, limit = 100 }: HistoryRange,
): Promise<HistoryParts> {
  // Without `peek` the look would make a key for a user who never was there.
  let page = await history.since(channel, after, limit, { peek: true, proof: after > 0 });
  const { epoch, last, afterTag } = page;
  const hasMore = () => page.upTo < page.last && page.epoch === epoch;
  const lookOn = async (limit: number) =>
    page = await history.since(channel, page.upTo, limit, { peek: true });
  // A look counts messages that have left towards its limit, so it may find none though there are some.
  while (page.items.length === 0 && hasMore()) await lookOn(limit);

  async function* parts(): AsyncGenerator<string[], void> {
    for (let left = limit; page.epoch === epoch;) {
      yield* partsOf(page);
      left -= page.items.length;
      if (left <= 0 || !hasMore()) return;
      await lookOn(left);
    }
  }
  return { epoch, first: page.items[0]?.seq ?? 0, last, afterTag, parts: parts() };
}

function* partsOf({ items }: Page): Generator<string[]> {
  let part: string[] = [], length = 0;
  for (const { envelope } of items) {
    if (length + envelope.length > PART_LENGTH && part.length > 0) {
      yield part;
      [part, length] = [[], 0];
    }
    part.push(frameOf(envelope));
    length += envelope.length;
  }
  if (part.length > 0) yield part;
}
