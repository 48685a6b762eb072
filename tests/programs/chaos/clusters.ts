/**
 * The faults of a cluster: slots that wander, replicas that take over, nodes that come and go. None of them is excused from the
 * comparison of counts: whoever can't count right refuses the send.
 */
import type { ClusterServer } from "../../../testkit/redis_cluster.ts";
import type { Faults } from "./faults.ts";
import { pause, type World } from "./world.ts";

const MOVED = 2_500;
const HANG_MS = 9_000;

export const CLUSTER_FAULTS: Faults = {
  // Nobody is away meanwhile: it may take longer than histories hold.
  "reshard of 2,500 slots": {
    harmless: true,
    async run(world) {
      const [from, to] = await two(world);
      await world.cluster.move(await slotsOf(from, MOVED), from, to);
    },
  },

  "slots moved by hand, some keys at a time": {
    harmless: true,
    async run(world) {
      const { cluster, ledger, chance } = world;
      const from = await anyMaster(world);
      const [to] = (await cluster.masters()).filter((other) => other !== from);
      const slots = new Set(await Promise.all(ledger.users.slice(0, 30).map((user) => cluster.slotOf(user))));
      const own = [];
      for (const slot of slots) if (await cluster.keeperOf(slot) === from) own.push(slot);
      for (const slot of own.slice(0, 5)) {
        await cluster.beginMove(slot, from, to!);
        await pause(chance.below(300));
        while (await cluster.moveKeys(slot, from, to!, 1 + chance.below(40)) > 0) {
          await pause(chance.below(100));
        }
        await cluster.endMove(slot, from, to!);
      }
    },
  },

  "CLUSTER FAILOVER": {
    away: true,
    harmless: true,
    async run(world) {
      const [replica] = await world.cluster.replicasOf(await anyMaster(world));
      await world.cluster.failOver(replica!);
      await world.cluster.settled();
    },
  },

  "kill -9 a master": {
    away: true,
    async run(world) {
      const { cluster, ledger } = world;
      const master = await anyMaster(world);
      const [replica] = await cluster.replicasOf(master);
      await master.server.stop({ signal: "SIGKILL" });
      await cluster.promoted(replica!);
      ledger.redisLost();
      await master.server.restart({ keepData: true });
      await cluster.settled();
      await master.server.copied();
    },
  },

  "SIGSTOP a master for 9 s": {
    away: true,
    async run(world) {
      const { cluster, ledger } = world;
      const master = await anyMaster(world);
      const [replica] = await cluster.replicasOf(master);
      await master.server.pause();
      await pause(HANG_MS);
      await cluster.promoted(replica!);
      ledger.redisLost();
      master.server.resume();
      await cluster.settled();
      await master.server.copied();
    },
  },

  "a replica lags, and its master is killed": {
    away: true,
    async run(world) {
      const { cluster, ledger, chance } = world;
      const master = await anyMaster(world);
      const [replica] = await cluster.replicasOf(master);
      await replica!.server.pause();
      // Else what is sent from now on would be in its socket when it goes on.
      await master.server.cli("CLIENT", "KILL", "TYPE", "replica");
      await pause(200 + chance.below(800)); // what comes now it does not get
      await master.server.stop({ signal: "SIGKILL" });
      replica!.server.resume();
      await cluster.promoted(replica!);
      ledger.redisLost();
      await master.server.restart({ keepData: true });
      await cluster.settled();
      await master.server.copied();
    },
  },

  "a master added, and removed": {
    harmless: true,
    async run(world) {
      const { cluster } = world;
      const from = await anyMaster(world);
      const added = await cluster.addNode();
      const slots = await slotsOf(from, 500);
      await cluster.move(slots, from, added);
      await cluster.settled();
      await pause(1_000);
      await cluster.move(slots, added, from);
      await cluster.settled();
      await cluster.removeNode(added);
    },
  },

  "the whole cluster down, and back": {
    away: true,
    async run(world) {
      const { cluster, ledger } = world;
      await Promise.all(cluster.nodes.map(({ server }) => server.stop()));
      ledger.redisLost();
      await Promise.all(cluster.nodes.map(({ server }) => server.restart({ keepData: true })));
      await cluster.settled();
    },
  },
};

async function anyMaster({ cluster, chance }: World): Promise<ClusterServer> {
  const masters = await cluster.masters();
  return masters[chance.below(masters.length)]!;
}

/** The master with the most slots, and the one with the fewest. */
async function two({ cluster }: World): Promise<[ClusterServer, ClusterServer]> {
  const counted = await Promise.all(
    (await cluster.masters()).map(async (master) =>
      [master, (await slotsOf(master, Infinity)).length] as const
    ),
  );
  counted.sort(([, one], [, other]) => other - one);
  return [counted[0]![0], counted.at(-1)![0]];
}

/** The first slots of a master. */
async function slotsOf({ server, id }: ClusterServer, count: number): Promise<number[]> {
  const ranges = await server.cli("CLUSTER", "SLOTS") as [number, number, [string, number, string]][];
  return ranges.filter(([, , [, , keeper]]) => keeper === id)
    .flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i))
    .slice(0, count);
}
