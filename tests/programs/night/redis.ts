/** Faults of Redis: it fails over, goes away, hangs, evicts, is full, is slow. */
import { until } from "../../../testkit/deadline.ts";
import { SentinelSet } from "../../../testkit/redis_sentinel.ts";
import { RedisServer } from "../../../testkit/redis_server.ts";
import { consoleOf, linesOf, readyz } from "./night.ts";
import { doctor, type Fault, nodes, sendAll, USERS } from "./fault.ts";

export const REDIS_FAULTS: readonly Fault[] = [
  {
    name: "Redis fails over, by Sentinels",
    fires: ["UserwireRedisInterrupted"],
    may: [
      "UserwireSendsUnavailable",
      "UserwireRedisUnavailable",
      "UserwireHistoryLost",
      "UserwireMessagesMissed",
    ],
    async play(night) {
      const set = night.use(await SentinelSet.start());
      const env = { REDIS_URL: set.url };
      const [one, other] = await nodes(night, 2, env);
      await night.open(one!, USERS);
      sendAll(night, other!);
      await night.read(one!.server.url, other!.server.url);
      const [master, replica] = set.servers;
      await master!.stop({ signal: "SIGKILL" });
      await night.fires("UserwireRedisInterrupted");
      await until(async () => (await one!.readiness()).status === 200, "the node to be ready again");
      return [
        ["lines", /redis unavailable .*reason/, linesOf(one!, "redis unavailable")],
        ["redis-cli info replication", /role:master/, await replica!.info("replication")],
        ["doctor", /✓ redis version: .*master/, await doctor(env)],
        ["console", /"redis_reconnects":[1-9]/, await consoleOf(one!.server.url)],
      ];
    },
  },
  {
    name: "Redis is gone",
    fires: ["UserwireRedisUnavailable", "UserwireSendsUnavailable"],
    may: ["UserwireRedisInterrupted", "UserwireSendsSlow"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ appendOnly: true }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      sendAll(night, node!);
      await night.read(node!.server.url);
      await redis.stop();
      await night.fires("UserwireRedisUnavailable");
      await night.fires("UserwireSendsUnavailable");
      const [seen, found] = [await readyz(node!), await doctor(env)];
      await redis.restart({ keepData: true });
      await night.ends("UserwireRedisUnavailable");
      return [
        ["readyz", /"ready":false,"why":"Redis is not available: .*nobody listens there/, seen],
        ["doctor", /✗ redis: Redis is not available: .*nobody listens there/, found],
        ["readyz, when it is over", /"ready":true/, await readyz(node!)],
      ];
    },
  },
  {
    name: "Redis hangs",
    fires: ["UserwireRedisUnavailable"],
    may: ["UserwireSendsUnavailable", "UserwireRedisInterrupted", "UserwireSendsSlow"],
    async play(night) {
      const redis = night.use(await RedisServer.start());
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.read(node!.server.url);
      await redis.pause();
      await night.fires("UserwireRedisUnavailable");
      const [seen, found] = [await readyz(node!), await doctor(env)];
      redis.resume();
      await night.ends("UserwireRedisUnavailable");
      return [["readyz", /"why":"[^"]*Redis/, seen], ["doctor", /✗ redis: [^\n]*Redis/, found]];
    },
  },
  {
    name: "Redis may evict, and does",
    fires: ["UserwireWarnings", "UserwireHistoryLost"],
    may: ["UserwireMessagesMissed", "UserwireSendsUnavailable"],
    async play(night) {
      const args = ["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-random", "--appendonly", "yes"];
      const redis = night.use(await RedisServer.start({ args }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      const clients = await night.open(node!, USERS);
      for (const user of USERS) await node!.send(user, 1);
      for (const client of clients) await client.nextJson();
      await night.read(node!.server.url);
      let n = 0;
      // Others fill it, until histories have to go.
      night.steadily(2, () => redis.cli("SET", `other${n++}`, "x".repeat(65_536)));
      sendAll(night, node!, 10);
      await night.fires("UserwireWarnings");
      await night.fires("UserwireHistoryLost");
      return [
        ["readyz", /"warnings":\[".*maxmemory-policy allkeys-random/, await readyz(node!)],
        ["doctor", /! redis data: .*maxmemory-policy/, await doctor(env)],
        [
          "console",
          /"gaps":\{[^}]*"epoch":[1-9].*"warnings":\[".*maxmemory-policy/,
          await consoleOf(node!.server.url),
        ],
        ["redis-cli info stats", /evicted_keys:[1-9]/, await redis.info("stats")],
      ];
    },
  },
  {
    name: "Redis is full",
    fires: ["UserwireSendsUnavailable"],
    may: ["UserwireNoNodeReady", "UserwireNotReady"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.open(node!, USERS);
      sendAll(night, node!);
      await night.read(node!.server.url);
      await redis.cli("CONFIG", "SET", "maxmemory", 1);
      await night.fires("UserwireSendsUnavailable");
      return [
        ["lines", /as much data as its maxmemory allows/, linesOf(node!, "redis refused a command")],
        ["readyz", /as much data as its maxmemory allows/, await readyz(node!)],
        ["doctor", /as much data as its maxmemory allows/, await doctor(env)],
      ];
    },
  },
  {
    name: "Redis closes subscriptions",
    fires: ["UserwireSubscriptionsLost"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      await night.open(node!, USERS);
      await night.read(node!.server.url);
      await redis.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 32768 8192 60");
      await redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
      await night.fires("UserwireSubscriptionsLost");
      return [["doctor", /! redis output buffer: .*cuts a node off/, await doctor(env)]];
    },
  },
  {
    name: "Redis is slow",
    fires: ["UserwireSendsSlow"],
    may: ["UserwireWarnings"],
    async play(night) {
      const redis = night.use(await RedisServer.start({ args: ["--appendonly", "yes"] }));
      const env = { REDIS_URL: redis.url };
      const [node] = await nodes(night, 1, env);
      sendAll(night, node!);
      await night.read(node!.server.url);
      // Somebody else's command holds it up, again and again.
      night.steadily(
        800,
        () => redis.cli("EVAL", "local n = 0 for i = 1, 60000000 do n = n + i end return n", 0),
      );
      await night.fires("UserwireSendsSlow");
      return [
        ["redis-cli slowlog get", /EVAL/, JSON.stringify(await redis.cli("SLOWLOG", "GET", 3))],
      ];
    },
  },
];
