/** The faults that others cause who use the same Redis: they watch, they fill it, or they put back what was there before. */
import { RedisCommands } from "../../../testkit/redis_commands.ts";
import type { RedisServer } from "../../../testkit/redis_server.ts";
import type { Faults } from "./faults.ts";
import { pause, type World } from "./world.ts";

const WATCH_MS = 2_500;
/** So old is the copy at least, in milliseconds, and at most twice as old. */
const PUT_BACK_AFTER_MS = 1_500;
const PRESSURE_MS = 2_000;
/** Of one in so many users the keys are put back. */
const PUT_BACK_ONE_IN = 4;
/** Others' values, in bytes, and how many of them are written at one time. */
const VALUE = "x".repeat(4_096);
const AT_A_TIME = 50;

export const COMPANY_FAULTS: Faults = {
  "watchers by pattern": {
    harmless: true,
    async run({ redis }) {
      using _all = await watch(redis, "*");
      using _users = await watch(redis, "user-*");
      using _absent = await watch(redis, "absent-*");
      await pause(WATCH_MS);
    },
  },

  "some users' keys put back from a copy": { run: (world) => putBack(world) },
  // They have less than the copy: only the nodes know that anything is missing.
  "some users' keys put back from a copy that is newer than those who are away": {
    away: true,
    run: (world) => putBack(world, { isOlderThanAway: false }),
  },

  "eviction, allkeys-lru": { away: true, run: (world) => evict(world, "allkeys-lru") },
  "eviction, volatile-lru": { away: true, run: (world) => evict(world, "volatile-lru") },
};

/** Listens by a pattern until it is disposed of. */
async function watch(redis: RedisServer, pattern: string): Promise<Disposable> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port: redis.port });
  await conn.write(new TextEncoder().encode(`PSUBSCRIBE ${pattern}\r\n`));
  void conn.readable.pipeTo(new WritableStream()).catch(() => {}); // it ends with the connection
  return {
    [Symbol.dispose]() {
      try {
        conn.close();
      } catch {
        // Redis was first.
      }
    },
  };
}

/**
 * Copies all that is kept of some users, each at one moment, and puts it back later. Redis and all other data go on, so that
 * nothing but the messages themselves, and who remembers them, can tell.
 * @param options.isOlderThanAway Whether clients go away that have more than the copy. @default true
 */
async function putBack(world: World, { isOlderThanAway = true } = {}): Promise<void> {
  const { redis, ledger, chance } = world;
  const copy = `
    for _, key in ipairs(KEYS) do redis.call('COPY', key, 'copy:' .. key, 'REPLACE') end`;
  const back = `
    for _, key in ipairs(KEYS) do
      if redis.call('COPY', 'copy:' .. key, key, 'REPLACE') == 0 then redis.call('DEL', key) end
      redis.call('DEL', 'copy:' .. key)
    end`;
  const users = ledger.users.filter(() => chance.below(PUT_BACK_ONE_IN) === 0);
  const keysOf = (user: string) => ["position", "inbox"].map((kind) => `userwire:{${user}}:${kind}`);
  using operator = await RedisCommands.connect({ port: redis.port });
  for (const user of users) await operator.command("EVAL", copy, 2, ...keysOf(user));
  await pause(PUT_BACK_AFTER_MS + chance.below(PUT_BACK_AFTER_MS)); // what comes now is lost to whoever is away later
  const happen = async () => {
    for (const user of users) {
      await operator.command("EVAL", back, 2, ...keysOf(user));
      ledger.putBack(user);
    }
  };
  if (isOlderThanAway) await world.whileSomeAreAway(happen);
  else await happen();
}

/** Others write until nearly a third of what Redis holds had to go. */
async function evict({ redis, ledger }: World, policy: string): Promise<void> {
  const beginMs = performance.now();
  const memory = await redis.info("memory");
  const [used, dataset] = [/^used_memory:(\d+)/m, /^used_memory_dataset:(\d+)/m].map((pattern) =>
    Number(pattern.exec(memory)![1])
  );
  // One candidate each time: any key may be the one that was used least.
  await redis.cli("CONFIG", "SET", "maxmemory-samples", 1, "maxmemory-policy", policy);
  await redis.cli("CONFIG", "SET", "maxmemory", Math.round(used! - 0.3 * dataset!));
  try {
    using others = await RedisCommands.connect({ port: redis.port });
    const script = `
      for i = 1, ARGV[2] do
        local reply = redis.pcall('SET', 'cache:' .. ARGV[1] .. ':' .. i, ARGV[3], 'EX', 3600)
        if reply.err then return reply.err end
      end
      return ''`;
    for (let round = 0; performance.now() < beginMs + PRESSURE_MS; round++) {
      await others.command("EVAL", script, 0, round, AT_A_TIME, VALUE).catch(() => {}); // it is full
      await pause(10);
    }
  } finally {
    await redis.cli("CONFIG", "SET", "maxmemory", 0);
    await redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory-samples", 5);
    ledger.redisEvicted(beginMs);
    for (let cursor = "0";;) {
      const [next, keys] = await redis.cli("SCAN", cursor, "MATCH", "cache:*", "COUNT", 1_000) as [
        string,
        string[],
      ];
      if (keys.length > 0) await redis.cli("UNLINK", ...keys);
      if ((cursor = next) === "0") break;
    }
  }
}
