/** Names of a user's keys in Redis. All share the hash slot of the user's channel: usernames hold no braces. */

/** The counter, with its epoch. */
export function positionKey(channel: string): string {
  return `userwire:{${channel}}:position`;
}

/** The history. */
export function historyKey(channel: string): string {
  return `userwire:{${channel}}:inbox`;
}

/** What the first send with an idempotency key came to. */
export function idempotencyKey(channel: string, key: string): string {
  return `userwire:{${channel}}:key:${key}`;
}
