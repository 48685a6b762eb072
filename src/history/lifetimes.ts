/** How long what a history keeps beside the messages lives, in milliseconds, whoever keeps it. */

/** How long an idempotency key is remembered. */
export const IDEMPOTENCY_TTL_MS = 5 * 60_000;

/** How long a claim is remembered: until the last of its appends has forgotten the key. */
export const CLAIM_TTL_MS = IDEMPOTENCY_TTL_MS + 60_000;

/** How long a counter is kept after its last use. */
export const COUNTER_TTL_MS = 24 * 3_600_000;
