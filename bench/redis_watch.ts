/** What Redis says about its clients and channels, asked often over one connection of its own. */
import { until } from "../testkit/deadline.ts";
import { RedisCommands } from "../testkit/redis_commands.ts";

export class RedisWatch implements Disposable {
  readonly #commands: RedisCommands;

  private constructor(commands: RedisCommands) {
    this.#commands = commands;
  }

  static async connect(port: number): Promise<RedisWatch> {
    return new RedisWatch(await RedisCommands.connect({ port }));
  }

  /** A number out of `INFO`, such as "pubsub_channels" of section "stats". */
  async info(section: string, field: string): Promise<number> {
    const text = String(await this.#commands.command("INFO", section));
    const value = new RegExp(`^${field}:(\\d+)`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`Redis says nothing of "${field}" in INFO ${section}`);
    return Number(value);
  }

  /** Channels with a subscriber. */
  channels(): Promise<number> {
    return this.info("stats", "pubsub_channels");
  }

  /** Connections to Redis, this one not counted. */
  async clients(): Promise<number> {
    const list = String(await this.#commands.command("CLIENT", "LIST"));
    return list.split("\n").filter((line) => line !== "").length - 1;
  }

  /** Resolves when there are so many channels. */
  async untilChannels(count: number, ms: number): Promise<void> {
    await until(
      async () => await this.channels() === count,
      `Redis to have ${count} subscribed channels`,
      ms,
    );
  }

  [Symbol.dispose](): void {
    this.#commands.close();
  }
}
