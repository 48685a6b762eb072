/** The contract of a broker on a real cluster and behind real Sentinels, with subscriptions of both kinds. */
import { openEngine } from "../../src/engine/engine.ts";
import { brokerContract } from "../contracts/broker.ts";
import { asSteps } from "../contracts/steps.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { SentinelSet } from "../../testkit/redis_sentinel.ts";
import { redisTest } from "../../testkit/redis_server.ts";

interface Place extends AsyncDisposable {
  readonly url: string;
  /** How many subscriptions Redis counts of a channel. */
  count(channel: string): Promise<number>;
}

async function onCluster(): Promise<Place> {
  const cluster = await ClusterSet.start();
  return {
    url: cluster.url,
    async count(channel) {
      const { server } = await cluster.keeperOf(await cluster.slotOf(channel));
      return Number((await server.cli("PUBSUB", "SHARDNUMSUB", channel) as unknown[])[1]);
    },
    [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose](),
  };
}

async function behindSentinels(): Promise<Place> {
  const set = await SentinelSet.start();
  const [master] = set.servers;
  return {
    url: set.url,
    count: async (channel) => Number((await master!.cli("PUBSUB", "NUMSUB", channel) as unknown[])[1]),
    [Symbol.asyncDispose]: () => set[Symbol.asyncDispose](),
  };
}

for (
  const [where, start] of Object.entries({ "on a cluster": onCluster, "behind Sentinels": behindSentinels })
) {
  for (const subscriptions of ["dedicated", "shared"] as const) {
    redisTest(`A broker ${where} keeps its contract, with ${subscriptions} subscriptions`, async (t) => {
      await using place = await start();
      const open = async () => {
        const engine = openEngine({ redisUrl: place.url, subscriptions });
        await connected(engine);
        await until(() => engine.broker.unavailable() === undefined, "the broker to be available");
        return engine;
      };
      await asSteps(t, (test) =>
        brokerContract("It", async () => {
          const ours = await open();
          const theirs = await open();
          return {
            broker: ours.broker,
            peer: theirs.broker,
            countOutside: place.count,
            async dispose() {
              await ours.close();
              await theirs.close();
            },
          };
        }, { test }));
    });
  }
}
