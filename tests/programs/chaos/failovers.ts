/**
 * The faults of a master with a replica: one takes over from the other, with all data or without the newest; or the way
 * to the master leads to the replica. Connections are led elsewhere by a proxy, which leaves alone those that are
 * there.
 */
import { until } from "../../../testkit/deadline.ts";
import type { RedisServer } from "../../../testkit/redis_server.ts";
import type { Faults } from "./faults.ts";
import { pause, type World } from "./world.ts";

const FAILOVER_MS = 15_000;
/** A connection that leads to a replica has this long to be left. */
const LEAVE_MS = 3_000;

export const FAILOVER_FAULTS: Faults = {
  "planned failover, connections survive": {
    cuts: true,
    away: true,
    harmless: true,
    async run(world) {
      const { redis, replica } = world;
      await replica.copied();
      await redis.failOverTo(replica, "TIMEOUT", 10_000);
      await until(async () => await roleOf(replica) === "master", "the replica to take over", FAILOVER_MS);
      replica.followNext(undefined);
      redis.followNext(replica);
      world.swap();
      await redis.copied();
    },
  },

  "failover by hand, connections survive": {
    cuts: true,
    away: true,
    async run(world) {
      const { redis, replica, ledger } = world;
      await replica.copied();
      await replica.follow(undefined);
      await redis.follow(replica);
      ledger.redisLost();
      world.swap();
      await redis.copied();
    },
  },

  "a lagging replica takes over, connections survive": {
    cuts: true,
    away: true,
    async run(world) {
      const { redis, replica, ledger, chance } = world;
      await replica.follow(undefined);
      await pause(200 + chance.below(800)); // what comes now it does not get
      await redis.follow(replica);
      ledger.redisLost();
      world.swap();
      await redis.copied();
    },
  },

  "the master dies, a lagging replica takes over": {
    cuts: true,
    away: true,
    async run(world) {
      await takeOver(world);
    },
  },

  "a lagging replica takes over, and is restarted": {
    cuts: true,
    away: true,
    async run(world) {
      await takeOver(world);
      await world.redis.restart({ keepData: true });
      // What was sent between its last save and its end is not in it.
      world.ledger.redisLost();
    },
  },

  "fail-back: the master becomes a copy, and master again": {
    cuts: true,
    away: true,
    async run(world) {
      const { redis, replica, ledger, chance } = world;
      await replica.follow(undefined);
      await pause(200 + chance.below(800)); // what comes now will be lost
      ledger.redisLost();
      await redis.follow(replica);
      await redis.copied();
      await redis.follow(undefined);
      // Those who were connected may be still.
      if (chance.below(2) === 0) await redis.cli("CLIENT", "KILL", "TYPE", "normal");
      if (chance.below(2) === 0) await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
      await replica.follow(redis);
      await replica.copied();
    },
  },

  "a replica answers new sockets": {
    // Those sockets are not handed what is sent before they are found to be astray, and rightly not counted.
    cuts: true,
    async run(world) {
      const { redis, replica, redisProxy, proxy, ledger } = world;
      redisProxy!.turn(replica.port);
      proxy.cut(5);
      await pause(LEAVE_MS);
      const deaf = await replica.cli("PUBSUB", "CHANNELS", "user-*") as string[];
      // Those that came in the last moment may be about to leave.
      redisProxy!.turn(redis.port);
      await pause(LEAVE_MS);
      const still = await replica.cli("PUBSUB", "CHANNELS", "user-*") as string[];
      const stayed = deaf.filter((channel) => still.includes(channel));
      if (stayed.length > 0) {
        ledger.violate(`${stayed.length} users, such as ${stayed[0]}, listen at the replica`);
      }
    },
  },

  "a replica answers a node": {
    cuts: true,
    async run(world) {
      const { redis, replica, redisProxy } = world;
      redisProxy!.turn(replica.port);
      await redis.cli("CLIENT", "KILL", "TYPE", "normal");
      const killedMs = performance.now();
      await pause(LEAVE_MS);
      const endMs = performance.now();
      redisProxy!.turn(redis.port);
      const accepted = world.ledger.acceptedWithin(killedMs, endMs);
      if (accepted > 0) {
        world.ledger.violate(`${accepted} sends were accepted while only a replica could be reached`);
      }
    },
  },
};

/** The master goes on for a while without its replica, which then takes over; the former comes back as a replica. */
async function takeOver(world: World): Promise<void> {
  const { redis, replica, ledger, chance } = world;
  await replica.follow(undefined);
  await pause(200 + chance.below(800)); // what comes now it does not get
  await redis.stop({ signal: "SIGKILL" });
  ledger.redisLost();
  world.swap();
  redis.followNext(replica);
  await redis.restart();
  await redis.copied();
}

async function roleOf(redis: RedisServer): Promise<string | undefined> {
  return /^role:(\w+)/m.exec(await redis.info("replication"))?.[1];
}
