/** How a publisher is opened, and what can't be used for it. */
import { prefix } from "../config/kinds.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { Groups } from "../groups/groups.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { ConfigError } from "../protocol/errors.ts";
import { databaseFault, parseRedisUrl, tlsFault } from "../redis/address.ts";
import type { UnackedBook } from "./unacked_send.ts";

/** How a publisher turns a username into a channel. */
export interface PublisherOptions {
  /** Put before each username. @default "" */
  channelPrefix?: string;
  /** Lower-case usernames, as `USERWIRE_USERNAME_CASE=lower` does. @default false */
  foldUsernames?: boolean;
  /** Where groups are kept: that of the same engine. Without it there are none. */
  groups?: Groups;
  /** Users that a group may have. @default 10000 */
  maxGroupUsers?: number;
  /** Most bytes that one message to a group may have, counted once for each user. @default 64 MiB */
  maxFanoutBytes?: number;
  /** Where sends are counted. */
  metrics?: Metrics;
  /** Where it is noted of which messages it is told that nobody has acknowledged them. */
  unacked?: UnackedBook | undefined;
}

/** @throws {ConfigError} when the prefix or what TLS is given can't be used, or the URL names a database without a prefix. */
export function assertUsable(options: EngineOptions & PublisherOptions): void {
  const { redisUrl, channelPrefix = "" } = options;
  if (channelPrefix !== "" && prefix.parse(channelPrefix) === undefined) {
    throw new ConfigError([`channelPrefix must be ${prefix.expects}: correct it, or leave it out`]);
  }
  const address = redisUrl ? parseRedisUrl(redisUrl) : undefined;
  const fault = address && databaseFault(address, channelPrefix);
  if (fault) {
    throw new ConfigError([`redisUrl ${fault.replace("USERWIRE_CHANNEL_PREFIX", "channelPrefix")}`]);
  }
  const faultOfTls = address && tlsFault(address, options.redisTls ?? {});
  if (faultOfTls) throw new ConfigError([`redisTls${faultOfTls}`]);
}
