/** `traceparent` of W3C Trace Context, which names the span that a send is a part of: read, and never an error. */

const FORM = /^(?!ff)([\da-f]{2})-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(-[^]*)?$/;
const SAMPLED = 1;

/** The parts of one that was read. */
export interface TraceParent {
  readonly traceId: string;
  readonly spanId: string;
  readonly traceFlags: number;
}

/**
 * The trace parent that a sender has given, in the form of version 00; what a later version adds is left out, as its
 * readers are told to do.
 * @returns Undefined where it is none: then the message is a part of no trace.
 */
export function readTraceParent(given: string): string | undefined {
  const [, version, traceId, spanId, flags, more] = FORM.exec(given) ?? [];
  if (version === "00") return more === undefined ? given : undefined;
  if (flags === undefined) return undefined;
  return `00-${traceId}-${spanId}-0${parseInt(flags, 16) & SAMPLED}`;
}

/** @param traceParent As `readTraceParent` gives it. @returns Undefined when its trace is not recorded. */
export function sampledParent(traceParent: string): TraceParent | undefined {
  const traceFlags = parseInt(traceParent.slice(-2), 16);
  if ((traceFlags & SAMPLED) === 0) return undefined;
  return { traceId: traceParent.slice(3, 35), spanId: traceParent.slice(36, 52), traceFlags };
}
