/** Trace parents as senders give them, and how each is read; undefined where it is none. */

/** One whose trace is recorded. */
export const SAMPLED = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
export const TRACE_ID = SAMPLED.slice(3, 35);
/** The same, whose trace is not. */
export const UNSAMPLED = SAMPLED.replace(/01$/, "00");

const LATER = SAMPLED.replace(/^00/, "cc");

export const TRACE_PARENTS: readonly (readonly [given: string, read: string | undefined])[] = [
  [SAMPLED, SAMPLED],
  [UNSAMPLED, UNSAMPLED],
  [SAMPLED.replace(/01$/, "ff"), SAMPLED.replace(/01$/, "ff")],
  // A later version may have more behind it, of which nothing is known.
  [LATER, SAMPLED],
  [`${LATER}-`, SAMPLED],
  [`${LATER}-what-"comes"\n\u2028then`, SAMPLED],
  [LATER.replace(/01$/, "03"), SAMPLED],
  [LATER.replace(/01$/, "fe"), UNSAMPLED],
  [`${LATER}more`, undefined],
  [SAMPLED.replace(/^00/, "ff"), undefined],
  [`${SAMPLED}-`, undefined],
  [`${SAMPLED}-more`, undefined],
  [`${SAMPLED}\n`, undefined],
  [`${SAMPLED}, ${SAMPLED}`, undefined],
  [` ${SAMPLED}`, undefined],
  [SAMPLED.toUpperCase(), undefined],
  [SAMPLED.slice(0, -1), undefined],
  [`${SAMPLED}0`, undefined],
  [SAMPLED.replaceAll("-", "_"), undefined],
  [SAMPLED.replace("4bf9", "4bg9"), undefined],
  [SAMPLED.replace("4bf9", "4b\u066d9"), undefined],
  [SAMPLED.replace("4bf92f", '",a":"'), undefined],
  [SAMPLED.replace(TRACE_ID, "0".repeat(32)), undefined],
  [SAMPLED.replace("00f067aa0ba902b7", "0".repeat(16)), undefined],
  [LATER.replace(TRACE_ID, "0".repeat(32)), undefined],
  [SAMPLED.replace(TRACE_ID, TRACE_ID.slice(2)), undefined],
  [SAMPLED.replace(TRACE_ID, `${TRACE_ID}00`), undefined],
  ["00---01", undefined],
  ["", undefined],
  ["0", undefined],
  ["a".repeat(10_000), undefined],
  ["-".repeat(10_000), undefined],
];
