/** What Redis, or all masters of a cluster together, say about clients and channels, asked often over connections of its own. */
import { until } from "../testkit/deadline.ts";
import { RedisCommands } from "../testkit/redis_commands.ts";

export class RedisWatch implements Disposable {
  readonly #all: readonly RedisCommands[];

  private constructor(all: readonly RedisCommands[]) {
    this.#all = all;
  }

  static async connect(...ports: readonly number[]): Promise<RedisWatch> {
    return new RedisWatch(await Promise.all(ports.map((port) => RedisCommands.connect({ port }))));
  }

  /** A number out of `INFO`, such as "pubsub_channels" of section "stats". */
  async info(section: string, field: string): Promise<number> {
    return (await this.#each("INFO", section)).reduce((sum, text) => {
      const value = new RegExp(`^${field}:(\\d+)`, "m").exec(text)?.[1];
      if (value === undefined) throw new Error(`Redis says nothing of "${field}" in INFO ${section}`);
      return sum + Number(value);
    }, 0);
  }

  /** Channels with a subscriber; on a cluster those of sharded pub/sub. */
  async channels(): Promise<number> {
    return await this.info("stats", "pubsub_channels") + await this.info("stats", "pubsubshard_channels");
  }

  /** Connections to Redis, those of this, of other nodes and of replicas not counted. */
  async clients(): Promise<number> {
    return (await this.clientsEach()).reduce((sum, count) => sum + count, 0);
  }

  /** The same of each one, in the order of the ports. */
  async clientsEach(): Promise<number[]> {
    const normal = await this.#each("CLIENT", "LIST", "TYPE", "NORMAL");
    const subscribed = await this.#each("CLIENT", "LIST", "TYPE", "PUBSUB");
    // This one is among them.
    return normal.map((list, i) => linesOf(list) + linesOf(subscribed[i]!) - 1);
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
    for (const commands of this.#all) commands.close();
  }

  #each(...command: string[]): Promise<string[]> {
    return Promise.all(this.#all.map(async (commands) => String(await commands.command(...command))));
  }
}

function linesOf(text: string): number {
  return text.split("\n").filter((line) => line !== "").length;
}
