/** Exponential back-off with jitter: how long to wait before the next attempt, so that a crowd does not come back as one. */

export interface Backoff {
  /** The longest first pause, which each further failure doubles, in milliseconds. */
  readonly baseMs: number;
  readonly maxMs: number;
  /** Which part of a pause is random: 1 for full jitter. @default 1 */
  readonly jitter?: number;
}

/**
 * @param failures How many attempts have failed, beyond those before the first pause.
 * @param random From 0 to 1.
 * @returns The pause in milliseconds.
 */
export function backoffMs(failures: number, backoff: Backoff, random: number = Math.random()): number {
  const { baseMs, maxMs, jitter = 1 } = backoff;
  return Math.min(maxMs, baseMs * 2 ** failures) * (1 - jitter + jitter * random);
}
