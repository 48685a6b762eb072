/** The faults, each with a name for the table. One runs at a time; what it broke works again when it resolves. */
import { ProcessService } from "../support/process_service.ts";
import type { Chance } from "../support/random.ts";
import type { RedisServer } from "../support/redis_server.ts";
import type { Ledger } from "./ledger.ts";
import type { Proxy } from "./proxy.ts";

export interface World {
  readonly chance: Chance;
  readonly redis: RedisServer;
  readonly proxy: Proxy;
  readonly ledger: Ledger;
  readonly settings: Readonly<Record<string, string>>;
  /** The instances that live. */
  readonly instances: ProcessService[];
}

export type Fault = (world: World) => Promise<void>;

export const FAULTS: Readonly<Record<string, Fault>> = {
  async "kill -9 an instance, start another"(world) {
    const index = world.chance.below(world.instances.length);
    const [victim] = world.instances.splice(index, 1);
    aim(world);
    victim!.signal("SIGKILL");
    await victim!.ended();
    await victim![Symbol.asyncDispose]();
    world.instances.push(await ProcessService.start(world.settings));
    aim(world);
  },

  async "CLIENT KILL TYPE pubsub"({ redis }) {
    await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
  },

  async "drop single subscriptions between store and delivery"({ redis, chance }) {
    for (let times = 0; times < 40; times++) {
      const list = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).trim().split("\n");
      const id = /\bid=(\d+)/.exec(list[chance.below(list.length)] ?? "")?.[1];
      if (id !== undefined) await redis.cli("CLIENT", "KILL", "ID", id);
      await pause(chance.below(20));
    }
  },

  async "SIGSTOP and SIGCONT Redis"({ redis, chance }) {
    await redis.pause();
    await pause(300 + chance.below(4_000));
    redis.resume();
  },

  async "CLIENT PAUSE"({ redis, chance }) {
    const ms = 200 + chance.below(2_000);
    await redis.cli("CLIENT", "PAUSE", ms, "ALL");
    await pause(ms);
  },

  async "restart Redis with its data"({ redis, ledger }) {
    await redis.cli("SAVE");
    await redis.stop();
    // What was sent between its last save and its end is not in it.
    ledger.redisLost();
    await redis.restart({ keepData: true });
  },

  async "kill -9 Redis, restart with an older snapshot"({ redis, ledger }) {
    await redis.cli("SAVE");
    await pause(500);
    await redis.stop({ signal: "SIGKILL" });
    ledger.redisLost();
    await redis.restart({ keepData: true });
  },

  async "restart Redis without its data"({ redis, ledger }) {
    await redis.stop({ signal: "SIGKILL" });
    ledger.redisLost();
    await redis.restart();
  },

  // deno-lint-ignore require-await -- all faults have the same form
  async "cut a fifth of the sockets"({ proxy }) {
    proxy.cut(5);
  },

  async "stall a tenth of the readers"({ proxy, chance }) {
    const ms = 500 + chance.below(2_500);
    proxy.stall(10, ms);
    await pause(ms);
  },
};

/** Tells the proxy which instances live. */
export function aim({ proxy, instances }: World): void {
  proxy.targets = instances.map(({ url }) => Number(new URL(url).port));
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
