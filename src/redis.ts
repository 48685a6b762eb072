/**
 * What is asked of Redis: publishing, counting, and whatever is stored there. All of it goes on one connection, which
 * `redis/` keeps. Subscriptions have connections of their own, in `broker/`.
 */
import { createHash } from "node:crypto";
import { messageOf } from "./errors.ts";
import { CommandConnection, type RedisOptions } from "./redis/command_connection.ts";
import { warningsOf } from "./redis/warnings.ts";
import { isReply } from "./redis/words.ts";

export type { FirstAttempt, RedisOptions } from "./redis/command_connection.ts";
export type { RedisTls } from "./redis/library.ts";
export { Watch } from "./redis/watch.ts";
export { explain, explainReply, verbatim } from "./redis/words.ts";

/** A Lua script, known to Redis by its hash. It has keys; called without any it does nothing. */
export class Script {
  readonly source: string;
  readonly sha: string;

  constructor(source: string) {
    this.source = `if #KEYS == 0 then return end\n${source}`;
    this.sha = createHash("sha1").update(this.source).digest("hex");
  }
}

export class Redis extends CommandConnection {
  /** Whether it may be asked for its settings. An ACL user of its own should not have that right: Redis notes a trial. */
  readonly #asksSettings: boolean;

  private constructor(url: string, options: RedisOptions) {
    super(url, options);
    this.#asksSettings = !/^\w+:\/\/[^:@/]+[^/]*@/.test(url);
  }

  /** Starts connecting and returns at once; see `unavailable`. */
  static open(url: string, options: RedisOptions = {}): Redis {
    return new Redis(url, options);
  }

  /** @returns How many subscriptions Redis handed the payload to. */
  publish(channel: string, payload: string): Promise<number> {
    return this.command((client) => client.publish(channel, payload));
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

  /** What it is set to that may lose data: sentences without a full stop. @throws {BrokerUnavailableError} */
  async warnings(): Promise<string[]> {
    const info = await this.command((client) => client.info());
    const save = await this.command(async (client) => {
      if (!this.#asksSettings) return undefined;
      try {
        return (await client.configGet("save")).save;
      } catch (error) {
        // Managed services forbid it.
        if (isReply(error)) return undefined;
        throw error;
      }
    });
    return warningsOf(info, save);
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
