import { openBackbone } from "../src/backbone.ts";
import { brokerContract } from "./contracts/broker.ts";
import { RedisServer, redisTest } from "./support/redis_server.ts";

brokerContract("SharedRedisBroker", async () => {
  const server = await RedisServer.start();
  const options = { redisUrl: server.url, subscriptions: "shared", sharedConnections: 2 } as const;
  const ours = openBackbone(options);
  const theirs = openBackbone(options);
  await Promise.all([ours.firstAttempt(3_000), theirs.firstAttempt(3_000)]);
  return {
    broker: ours.broker,
    peer: theirs.broker,
    countOutside: async (channel) => Number((await server.cli("PUBSUB", "NUMSUB", channel) as unknown[])[1]),
    publishBytes: (channel, payload) => server.cli("PUBLISH", channel, payload),
    async dispose() {
      await ours.close();
      await theirs.close();
      await server[Symbol.asyncDispose]();
    },
  };
}, { test: redisTest });
