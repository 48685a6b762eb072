/** What the engine is opened with: which Redis, if any, how it is subscribed to, and what is kept of each user. */
import type { HistoryLimits } from "../history/history.ts";
import type { Log } from "../log/log.ts";
import type { RedisTls } from "../redis/address.ts";

export interface EngineOptions {
  /** Unset, and no file either: in memory. */
  redisUrl?: string | undefined;
  /** Absolute path of a file that holds the URL, which may change. */
  redisUrlFile?: string | undefined;
  /** Of the Sentinels that the URL names, where they want one. */
  redisSentinelUser?: string | undefined;
  redisSentinelPassword?: string | undefined;
  /** For `rediss://` only. */
  redisTls?: RedisTls | undefined;
  /** How long a command or a subscription may take, in milliseconds. @default 3000 */
  redisTimeoutMs?: number;
  /** One Redis connection per socket, or some per process. @default "dedicated" */
  subscriptions?: "dedicated" | "shared";
  /** How many per process, when shared. @default 1 */
  sharedConnections?: number;
  /** Messages kept of each user; 0 keeps none. @default 100 */
  history?: number;
  /** How long they are kept, in seconds. @default 300 */
  historyTtlS?: number;
  /** What the names of channels begin with. @default "" */
  channelPrefix?: string;
  /** Load the Redis functions, or only look which are there. @default "off" */
  redisFunctions?: "off" | "load" | "look";
  /** Largest payload that these take, in bytes. @default 65536 */
  maxBodyBytes?: number;
  /** What else they are written for. @default the limits of the history here */
  functionLimits?: HistoryLimits;
  /** Try all the time whether what a service needs can be had, for `unready`. @default false */
  probe?: boolean;
  log?: Log;
}
