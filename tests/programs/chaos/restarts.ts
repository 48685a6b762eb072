/** The faults in which Redis ends and begins again: with all its data, with some, with none. */
import type { Faults } from "./faults.ts";
import { pause } from "./world.ts";

/** Of a Redis that has snapshots, and no append-only file. */
export const SNAPSHOT_FAULTS: Faults = {
  "restart Redis with its data": {
    cuts: true,
    away: true,
    async run({ redis, ledger }) {
      await redis.cli("SAVE");
      await redis.stop();
      // What was sent between its last save and its end is not in it.
      ledger.redisLost();
      await redis.restart({ keepData: true });
    },
  },

  "SHUTDOWN SAVE, restart Redis with all data": {
    cuts: true,
    away: true,
    harmless: true,
    async run({ redis }) {
      // With a rule for snapshots it writes one when it is asked to end.
      await redis.cli("CONFIG", "SET", "save", "3600 1");
      await redis.stop();
      await redis.restart({ keepData: true });
    },
  },

  "kill -9 Redis, restart with an older snapshot": {
    cuts: true,
    away: true,
    async run({ redis, ledger }) {
      await redis.cli("SAVE");
      await pause(500);
      await redis.stop({ signal: "SIGKILL" });
      ledger.redisLost();
      await redis.restart({ keepData: true });
    },
  },

  "put back an older copy of a snapshot": {
    cuts: true,
    away: true,
    async run({ redis, ledger, chance }) {
      const copy = await redis.copyData();
      await pause(300 + chance.below(1_500));
      await redis.stop();
      ledger.redisLost();
      await redis.restart({ from: copy });
    },
  },

  "restart Redis without its data": {
    cuts: true,
    away: true,
    async run({ redis, ledger }) {
      await redis.stop({ signal: "SIGKILL" });
      ledger.redisLost();
      await redis.restart();
    },
  },
};

/** Of a Redis that has an append-only file. */
export const APPEND_ONLY_FAULTS: Faults = {
  "restart an append-only Redis with all data": {
    cuts: true,
    away: true,
    harmless: true,
    async run({ redis }) {
      await redis.restart({ keepData: true });
    },
  },

  "kill -9 Redis with appendfsync always": {
    cuts: true,
    away: true,
    harmless: true,
    async run({ redis, chance }) {
      await redis.cli("CONFIG", "SET", "appendfsync", "always");
      // What was written before is synced with the first write that comes after.
      await pause(200 + chance.below(500));
      await redis.restart({ keepData: true, signal: "SIGKILL" });
    },
  },

  "put back an older copy of an append-only file": {
    cuts: true,
    away: true,
    async run({ redis, ledger, chance }) {
      const copy = await redis.copyData();
      await pause(300 + chance.below(1_500));
      await redis.stop();
      ledger.redisLost();
      await redis.restart({ from: copy });
    },
  },

  "put back an older copy twice": {
    cuts: true,
    away: true,
    async run({ redis, ledger, chance }) {
      const copy = await redis.copyData();
      for (let times = 0; times < 2; times++) {
        await pause(300 + chance.below(1_000));
        await redis.stop({ signal: chance.below(2) === 0 ? "SIGKILL" : "SIGTERM" });
        ledger.redisLost();
        await redis.restart({ from: copy });
      }
    },
  },
};
