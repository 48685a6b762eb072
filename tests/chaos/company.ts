/** The faults that others cause who use the same Redis: they watch, or they fill it. */
import { RedisCommands } from "../support/redis_commands.ts";
import type { RedisServer } from "../support/redis_server.ts";
import type { Faults } from "./faults.ts";
import { pause, type World } from "./world.ts";

const WATCH_MS = 2_500;
const PRESSURE_MS = 2_000;
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
