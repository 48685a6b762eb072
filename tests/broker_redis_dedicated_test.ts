import { openBackbone } from "../src/backbone.ts";
import { brokerContract } from "./contracts/broker.ts";
import { redisBrokerContract } from "./contracts/redis_broker.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

function open(url: string) {
  return openBackbone({ redisUrl: url });
}

brokerContract("DedicatedRedisBroker", async () => {
  const server = await RedisServer.start();
  const ours = open(server.url);
  const theirs = open(server.url);
  await Promise.all([ours.firstAttempt(3_000), theirs.firstAttempt(3_000)]);
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
