/**
 * What the commands of pub/sub are called. On a cluster a channel lives in a slot, as a key does, and only the master that
 * keeps the slot counts its subscribers: sharded pub/sub, since Redis 7, has commands of its own for that.
 */
export interface PubSubWords {
  readonly publish: string;
  readonly subscribe: string;
  readonly unsubscribe: string;
  /** The subcommand of PUBSUB that counts subscribers. */
  readonly numsub: string;
  /** Whether there are subscriptions by pattern, which the answer of `publish` counts, too. */
  readonly hasPatterns: boolean;
}

export const PLAIN: PubSubWords = {
  publish: "PUBLISH",
  subscribe: "SUBSCRIBE",
  unsubscribe: "UNSUBSCRIBE",
  numsub: "NUMSUB",
  hasPatterns: true,
};

export const SHARDED: PubSubWords = {
  publish: "SPUBLISH",
  subscribe: "SSUBSCRIBE",
  unsubscribe: "SUNSUBSCRIBE",
  numsub: "SHARDNUMSUB",
  hasPatterns: false,
};
