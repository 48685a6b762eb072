/** What Redis, or all masters of a cluster together, say about clients and channels, asked often over connections of its own. */
import { until } from "../testkit/deadline.ts";
import { RESERVED_PREFIX } from "../src/protocol/username.ts";
import { RedisCommands, type Reply } from "../testkit/redis_commands.ts";

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
    return (await this.#each("INFO", section)).reduce<number>((sum, text) => {
      const value = new RegExp(`^${field}:(\\d+)`, "m").exec(String(text))?.[1];
      if (value === undefined) throw new Error(`Redis says nothing of "${field}" in INFO ${section}`);
      return sum + Number(value);
    }, 0);
  }

  /**
   * Channels of users that have a subscriber; on a cluster those of sharded pub/sub. Not those of nodes, which begin to
   * subscribe to them at some time after their start, several of them to the same.
   */
  async channels(): Promise<number> {
    let count = 0;
    for (
      const [field, list] of [["pubsub_channels", "CHANNELS"], [
        "pubsubshard_channels",
        "SHARDCHANNELS",
      ]] as const
    ) {
      const ofNodes = await this.#each("PUBSUB", list, `*${RESERVED_PREFIX}*`);
      count += await this.info("stats", field) - ofNodes.flat().length;
    }
    return count;
  }

  /** Connections for the subscriptions of sockets. */
  async clients(): Promise<number> {
    return sum(await this.clientsEach());
  }

  /** The same of each one, in the order of the ports. */
  clientsEach(): Promise<number[]> {
    return this.#named("userwire-subscription");
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

  /** How many connections have that name, at each. */
  async #named(name: string): Promise<number[]> {
    const subscribed = await this.#each("CLIENT", "LIST", "TYPE", "PUBSUB");
    return subscribed.map((list) => String(list).split(` name=${name} `).length - 1);
  }

  #each(...command: string[]): Promise<Reply[]> {
    return Promise.all(this.#all.map((commands) => commands.command(...command)));
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
