/**
 * The faults of networks, nodes and a Redis on its own, and what all faults have in common. One runs at a time; what
 * it broke can work again when it resolves.
 */
import { pause, type World } from "./world.ts";

export interface Fault {
  /** Makes it happen. */
  run(world: World): Promise<void>;
  /** Subscriptions are cut: until all is well again nobody can say how many sockets there are. @default false */
  readonly cuts?: boolean;
  /** A part of the clients is away meanwhile, and comes back with its positions. @default false */
  readonly away?: boolean;
  /** Nothing is lost, so no client may be told of a gap. @default false */
  readonly harmless?: boolean;
}

export type Faults = Readonly<Record<string, Fault>>;

export const NODE_FAULTS: Faults = {
  "kill -9 a node, start another": {
    async run(world) {
      await world.killNode(world.chance.below(world.nodes.length));
      await world.startNode();
    },
  },

  "cut a fifth of the sockets": {
    // deno-lint-ignore require-await -- all faults have the same form
    async run({ proxy }) {
      proxy.cut(5);
    },
  },

  "stall a tenth of the readers": {
    async run({ proxy, chance }) {
      const ms = 500 + chance.below(2_500);
      proxy.stall(10, ms);
      await pause(ms);
    },
  },
};

export const REDIS_FAULTS: Faults = {
  "CLIENT KILL TYPE pubsub": {
    cuts: true,
    async run({ redis }) {
      await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    },
  },

  "drop single subscriptions between store and delivery": {
    cuts: true,
    async run({ redis, chance }) {
      for (let times = 0; times < 40; times++) {
        const list = String(await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).trim().split("\n");
        const id = /\bid=(\d+)/.exec(list[chance.below(list.length)] ?? "")?.[1];
        if (id !== undefined) await redis.cli("CLIENT", "KILL", "ID", id);
        await pause(chance.below(20));
      }
    },
  },

  "SIGSTOP and SIGCONT Redis": {
    cuts: true,
    async run({ redis, chance }) {
      await redis.pause();
      await pause(300 + chance.below(4_000));
      redis.resume();
    },
  },

  "CLIENT PAUSE": {
    cuts: true,
    async run({ redis, chance }) {
      const ms = 200 + chance.below(2_000);
      await redis.cli("CLIENT", "PAUSE", ms, "ALL");
      await pause(ms);
    },
  },
};
