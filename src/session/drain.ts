/** How many sessions are ended together, so that their clients do not come back as one wave. */
import { sleep } from "../async/sleep.ts";
import { inSlices } from "../async/slices.ts";
import type { CloseReason } from "../protocol/close_codes.ts";
import type { Registry } from "./registry.ts";

/** Sessions are closed in steps of this length. */
const STEP_MS = 50;
/** At least this many sessions are closed in a second: a few clients are no herd. */
const MIN_PER_SECOND = 200;
/** When clients that are closed at once come back, at the latest. */
const MIN_RETRY_MS = 1_000;

/** What may be known of a drain while it goes on, and that it is given up. */
export interface DrainOptions {
  /** No more sessions are closed once it aborts. */
  readonly signal?: AbortSignal;
  /** So many of that many sessions were told to close. */
  onStep?(closed: number, of: number): void;
}

/**
 * Closes every session, spread over the window, and waits until all sockets are gone or the window has passed.
 * @param windowMs Milliseconds.
 * @returns How many sockets were left behind.
 */
export async function drain(
  registry: Registry,
  reason: CloseReason,
  windowMs: number,
  options: DrainOptions = {},
): Promise<number> {
  const endMs = performance.now() + windowMs;
  await closeAll(registry, reason, windowMs, options);
  const left = () => registry.size + registry.closing;
  if (options.signal?.aborted) return left();
  // Those that joined meanwhile.
  await inSlices(registry.live(), (member) => {
    member.close(reason, { retryMs: Math.random() * MIN_RETRY_MS });
  });
  await registry.whenGone(() => left() === 0, endMs, options.signal);
  return left();
}

/** As `drain`, but only for the sessions that there are now; those that join meanwhile stay. */
export async function sendAway(registry: Registry, reason: CloseReason, windowMs: number): Promise<void> {
  const endMs = performance.now() + windowMs;
  const members = registry.all();
  await closeAll(registry, reason, windowMs);
  let gone = 0;
  await registry.whenGone(() => {
    while (gone < members.length && !registry.has(members[gone]!)) gone++;
    return gone === members.length;
  }, endMs);
}

/** Closes the sessions that there are now, within two thirds of the window: then peers may take their time to answer. */
async function closeAll(
  registry: Registry,
  reason: CloseReason,
  windowMs: number,
  { signal, onStep }: DrainOptions = {},
): Promise<void> {
  const members = registry.live();
  const spreadMs = Math.min(windowMs * 2 / 3, members.length * 1_000 / MIN_PER_SECOND);
  const steps = Math.max(1, Math.ceil(spreadMs / STEP_MS));
  for (let step = 0; step < steps && !signal?.aborted; step++) {
    // Who goes at a third of the time comes back at two: arrivals are spread evenly over twice the time. Were each told a
    // random wait, most would come in the middle.
    const pauseMs = step / steps * spreadMs;
    const from = Math.floor(step * members.length / steps);
    const to = Math.floor((step + 1) * members.length / steps);
    await inSlices(members.slice(from, to), (member) => {
      member.close(reason, { retryMs: pauseMs + Math.random() * MIN_RETRY_MS });
    });
    onStep?.(to, members.length);
    if (step + 1 < steps) await sleep(STEP_MS, ...(signal ? [signal] : []));
  }
}
