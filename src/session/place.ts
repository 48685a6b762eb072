/**
 * Where a client's position stands in the history as it is now. Epochs and their origins tell up to where both agree;
 * beyond that the tag that the history has for a number, where it has one: another tag shows that the number was given
 * out a second time, whatever the epoch is called. Pure.
 */
import { originOf, ownNameOf } from "../history/epochs.ts";
import type { Page } from "../history/history.ts";
import type { Position } from "../protocol/position.ts";

/** Whether a page that was read after a position goes on from it: of the same epoch, and with the same message there. */
export function holds(page: Page, { epoch, seq, tag }: Position): boolean {
  return page.epoch === epoch && seq <= page.last && isSame(tag, page.afterTag);
}

/** Whether two tags are of one message, as far as both are known. */
function isSame(tag: string | undefined, other: string): boolean {
  return tag === undefined || tag === "" || other === "" || tag === other;
}

/**
 * Where a position of another epoch stands in this one. When the numbers go on from that epoch, what the client
 * has up to the break counts; else nothing does, and all there is will be new to it.
 */
export function placeIn(page: Page, before: Position): number {
  // Some numbers were given out a second time, and nothing tells from which on. Without a tag it is only a broken client
  // that is ahead of the counter.
  if (before.epoch === page.epoch) return before.tag ? 0 : page.last;
  const { afterTag } = page;
  if (before.tag !== undefined && before.tag === afterTag) return before.seq;
  const seq = agreedIn(page, before);
  // That number is said to be of the old epoch, and is not the client's: it was given out again before anybody noticed.
  return seq === before.seq && !isSame(before.tag, afterTag) ? 0 : seq;
}

/** Up to where an epoch has what a client has of another, by what is known of where they come from. */
function agreedIn({ epoch, previousEpochs, last }: Page, before: Position): number {
  const index = previousEpochs.findIndex(({ epoch }) => epoch === before.epoch);
  if (index >= 0) return lowest(before, previousEpochs.slice(index));
  // The epoch was lost before it was saved: what counts is where it came from.
  const origin = originOf(before.epoch);
  if (!origin) return 0;
  const has = { epoch: origin.epoch, seq: Math.min(before.seq, origin.seq) };
  if (ownNameOf(epoch) === origin.epoch) return lowest(has, [{ epoch: origin.epoch, seq: last }]);
  const since = previousEpochs.findIndex(({ epoch }) => ownNameOf(epoch) === origin.epoch);
  return since < 0 ? 0 : lowest(has, previousEpochs.slice(since));
}

function lowest(position: Position, others: readonly Position[]): number {
  return Math.min(position.seq, ...others.map(({ seq }) => seq));
}
