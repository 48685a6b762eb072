/** The faults of a master that Sentinels watch: they fail over, when they are told to and when it does not answer. */
import { until } from "../../../testkit/deadline.ts";
import { MASTER } from "../../../testkit/redis_sentinel.ts";
import type { RedisServer } from "../../../testkit/redis_server.ts";
import type { Faults } from "./faults.ts";
import { pause, type World } from "./world.ts";

const FAILOVER_MS = 30_000;
const HANG_MS = 9_000;

export const SENTINEL_FAULTS: Faults = {
  // Two nodes hear of the new master up to a second apart: what one sends meanwhile at the old one is counted there.
  "SENTINEL FAILOVER": {
    cuts: true,
    away: true,
    async run(world) {
      const { sentinels, ledger } = world;
      ledger.mayHaveUnanswered();
      const master = await sentinels.master();
      const beginMs = performance.now();
      await until(
        async () =>
          await sentinels.sentinels[0]!.cli("SENTINEL", "FAILOVER", MASTER).then(() => true, () => false),
        "the Sentinels to begin a failover",
        FAILOVER_MS,
      );
      await isReplaced(world, master);
      await isReplica(world, master);
      // What the old master took until it followed the new one is lost, and with it the keys of sends.
      ledger.redisLost(beginMs);
    },
  },

  "kill -9 the master": {
    away: true,
    async run(world) {
      world.ledger.mayHaveUnanswered();
      const master = await world.sentinels.master();
      const beginMs = performance.now();
      await master.stop({ signal: "SIGKILL" });
      await isReplaced(world, master);
      // The new one may have answered before the Sentinels were asked.
      world.ledger.redisLost(beginMs);
      await master.restart();
      await isReplica(world, master);
    },
  },

  "SIGSTOP the master for 9 s": {
    away: true,
    async run(world) {
      // In the middle of what it writes to its connections: to a client, and not yet to the replica, nor to who sent it.
      world.ledger.mayHaveUnanswered();
      const master = await world.sentinels.master();
      const beginMs = performance.now();
      await master.pause();
      await pause(HANG_MS);
      await isReplaced(world, master);
      master.resume();
      await isReplica(world, master);
      // A node that was slow to leave it may have sent there until it followed the new one.
      world.ledger.redisLost(beginMs);
    },
  },
};

async function isReplaced({ sentinels }: World, former: RedisServer): Promise<void> {
  await until(async () => await sentinels.master() !== former, "another master", FAILOVER_MS);
}

async function isReplica({ sentinels }: World, former: RedisServer): Promise<void> {
  let info = "";
  await until(
    async () => /^master_link_status:up/m.test(info = await former.info("replication").catch(() => "")),
    "the former master to follow the new one",
    FAILOVER_MS,
    () => info,
  );
  // A Sentinel fails over to a replica only that it knows of.
  await until(
    async () => /^[1-9]/.test((await sentinels.sentinels[0]!.master()).get("num-slaves") ?? ""),
    "the Sentinels to know a replica",
    FAILOVER_MS,
  );
}
