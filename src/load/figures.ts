/** What a load has brought to light, and what of it the load itself is to blame for. */
import type { Histogram } from "./histogram.ts";
import type { Refused } from "./refusals.ts";
import type { Faults } from "./tally.ts";

export interface Figures extends Faults {
  readonly users: number;
  readonly nodes: number;
  readonly connected: number;
  readonly connectSeconds: number;
  readonly connectTimes: Histogram;
  /** Handshakes that were refused for the moment, and made again. */
  readonly connectRetries: number;
  /** Sends a second that were asked for; undefined for as many as are answered. */
  readonly askedPerSecond: number | undefined;
  /** How long messages were sent. */
  readonly seconds: number;
  readonly sent: number;
  /** Sends that were due, and not made because too many were on their way. */
  readonly unsent: number;
  /** Sends that the service took. */
  readonly accepted: number;
  /** Of those: the answer was that nobody is connected. */
  readonly unheard: number;
  readonly refused: readonly Refused[];
  readonly delivered: number;
  /** Of the lost ones: those to users whose connection ended. */
  readonly lostWithConnection: number;
  /** Connections that ended, by their close code; 0 for none. */
  readonly dropped: ReadonlyMap<number, number>;
  /** From when a message was due until it arrived. */
  readonly latency: Histogram;
  /** From when a send left until it was answered with a success. */
  readonly answerTimes: Histogram;
  readonly inFlight: number;
  /** How late the load itself was, at each millisecond. */
  readonly lag: Histogram;
  /** What it took of a core, 0 to 1 and more. */
  readonly busy: number;
  readonly isInterrupted: boolean;
}

/** So late that it shows in what is measured, in milliseconds. */
const LATE_MS = 5;
/** Of the latencies that are measured. */
const LATE_PART = 0.25;
/** As much of a core as one thread gets that has no pause. */
export const BUSY = 0.9;

/**
 * What keeps a load from being faster or measuring less: "bench" is the load itself, "service" all that lies between
 * a send and its answer, undefined nothing: all that was asked for was done in time.
 */
export function limitOf(
  { askedPerSecond, unsent, sent, lag, latency, busy }: Pick<
    Figures,
    "askedPerSecond" | "unsent" | "sent" | "lag" | "latency" | "busy"
  >,
): "bench" | "service" | undefined {
  const lagMs = lag.quantileMs(0.99);
  if (lagMs >= LATE_MS && lagMs >= latency.quantileMs(0.99) * LATE_PART) return "bench";
  const isReached = askedPerSecond !== undefined && unsent === 0;
  if (isReached || sent === 0) return undefined;
  return busy >= BUSY ? "bench" : "service";
}
