/**
 * What is asked of Redis: publishing, counting, and whatever is stored there. All of it goes on one connection, which
 * `redis/` keeps. Subscriptions have connections of their own, in `broker/`.
 */
import { messageOf } from "./errors.ts";
import { positionKey } from "./redis/keys.ts";
import { Script } from "./redis/script.ts";
import { CommandConnection, type RedisOptions } from "./redis/command_connection.ts";

export type { FirstAttempt, RedisOptions } from "./redis/command_connection.ts";
export { Script } from "./redis/script.ts";
export type { ServerInfo } from "./redis/server_info.ts";
export type { Ask, Watch } from "./redis/watch.ts";
export type { RedisTls } from "./redis/library.ts";
export { explain, explainReply, verbatim } from "./redis/words.ts";

/** Not what PUBLISH answers is the count: that has whoever watches by pattern in it. */
const PUBLISH = new Script(
  `
local count = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
if count > 0 or ARGV[3] ~= '1' then redis.call('PUBLISH', ARGV[1], ARGV[2]) end
return count
`,
  { probe: (tag) => ({ keys: [positionKey(tag)], args: [tag, "", "0"] }) },
);

export class Redis extends CommandConnection {
  /** Starts connecting and returns at once; see `unavailable`. */
  static open(url: string, options: RedisOptions = {}): Redis {
    return new Redis(url, options);
  }

  /**
   * @param options.onlyIfHeard Publishes nothing when nobody is subscribed.
   * @returns How many subscriptions the channel has; whoever watches by pattern is none.
   */
  async publish(
    channel: string,
    payload: string,
    options: { onlyIfHeard?: boolean } = {},
  ): Promise<number> {
    const args = [channel, payload, options.onlyIfHeard ? "1" : "0"];
    return Number(await this.evaluate(PUBLISH, [positionKey(channel)], args));
  }

  /** @returns How many subscriptions each channel has, in the order asked. */
  async subscriberCounts(channels: readonly string[]): Promise<number[]> {
    if (channels.length === 0) return [];
    const counts = await this.command((client) =>
      client.sendCommand<unknown[]>(["PUBSUB", "NUMSUB", ...channels])
    );
    // The reply alternates names and numbers.
    return channels.map((_, i) => Number(counts[2 * i + 1]));
  }

  /** How many connections Redis has, and how many it takes: Infinity when it does not say, as before 6.2. */
  async clients(): Promise<{ connected: number; max: number }> {
    const info = await this.command((client) => client.info("clients"));
    return {
      connected: Number(/^connected_clients:(\d+)/m.exec(info)?.[1]),
      max: Number(/^maxclients:(\d+)/m.exec(info)?.[1] ?? Infinity),
    };
  }

  /**
   * Makes scripts known to Redis on every connection from the next one on, before anything is sent on it. Without that
   * the first batch after a restart would be told a thousand times that the script is not there.
   */
  prepare(...scripts: Script[]): void {
    // Not SCRIPT LOAD, which is a right of its own.
    for (const { source } of scripts) this.greetWith(["EVAL", source, "0"]);
  }

  /** Runs a script, alone and whole; all keys must share a hash slot. */
  evaluate(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    const rest = [String(keys.length), ...keys, ...args];
    return this.command(async (client) => {
      try {
        return await client.sendCommand(["EVALSHA", script.sha, ...rest]);
      } catch (error) {
        // Redis forgets scripts when it restarts, or is told to.
        if (!messageOf(error).startsWith("NOSCRIPT")) throw error;
        return await client.sendCommand(["EVAL", script.source, ...rest]);
      }
    });
  }
}
