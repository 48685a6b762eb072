/**
 * Names of a user's keys in Redis, and of a group's. All of one share a hash slot: a user's that of the channel, since
 * usernames hold no braces.
 */

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

/** The groups that a user may be in. */
export function groupsKey(channel: string): string {
  return `userwire:{${channel}}:groups`;
}

/** The users of a group. @param tag See `groupTag`. */
export function membersKey(tag: string): string {
  return `userwire:{${tag}}:members`;
}

/** What else is kept of a group. */
export function metaKey(tag: string): string {
  return `userwire:{${tag}}:meta`;
}
