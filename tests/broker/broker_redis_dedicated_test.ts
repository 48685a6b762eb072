import { assert, assertMatch } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { brokerContract } from "../contracts/broker.ts";
import { redisBrokerContract } from "../contracts/redis_broker.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { numbers } from "../../testkit/nodes.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

function open(url: string) {
  return openEngine({ redisUrl: url });
}

brokerContract("DedicatedRedisBroker", async () => {
  const server = await RedisServer.start();
  const ours = open(server.url);
  const theirs = open(server.url);
  await connected(ours, theirs);
  return {
    broker: ours.broker,
    peer: theirs.broker,
    countOutside: async (channel) => Number((await server.cli("PUBSUB", "NUMSUB", channel) as unknown[])[1]),
    async dispose() {
      await ours.close();
      await theirs.close();
      await server[Symbol.asyncDispose]();
    },
  };
}, { test: redisTest });

redisBrokerContract("DedicatedRedisBroker", (url) => {
  const { broker, close } = open(url);
  return { broker, dispose: close };
}, { isDedicated: true });

redisTest(
  "DedicatedRedisBroker leaves room in Redis also when several nodes take places at once",
  async () => {
    await using server = await RedisServer.start({ args: ["--maxclients", "120"] });
    await using stack = new AsyncDisposableStack();
    const brokers = Array.from({ length: 3 }, () => {
      const { broker, close } = open(server.url);
      stack.defer(close);
      return broker;
    });
    await until(() => brokers.every((broker) => broker.unavailable() === undefined), "all to be connected");
    const attempts = await Promise.allSettled(
      numbers(1, 300).map((n) => brokers[n % 3]!.subscribe(`user-${n}`, new Recorder())),
    );
    const failures = attempts.flatMap((attempt) => attempt.status === "rejected" ? [attempt.reason] : []);
    for (const { message } of failures) assertMatch(message, /as many connections as it may/);
    const stats = String(await server.cli("INFO", "stats"));
    assertMatch(stats, /^rejected_connections:0\r$/m);
    // All but the reserve is used.
    const admitted = attempts.length - failures.length;
    assert(admitted > 60 && admitted < 120, `${admitted} subscriptions were let in`);
  },
);
