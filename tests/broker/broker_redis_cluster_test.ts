/** The contract of a broker on a real cluster, with subscriptions of both kinds; all tests on one cluster. */
import { openEngine } from "../../src/engine/engine.ts";
import { brokerContract } from "../contracts/broker.ts";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { redisTest } from "../../testkit/redis_server.ts";

for (const subscriptions of ["dedicated", "shared"] as const) {
  redisTest(`A broker on a cluster keeps its contract, with ${subscriptions} subscriptions`, async (t) => {
    await using cluster = await ClusterSet.start();
    const tests: { name: string; fn: () => Promise<void> }[] = [];
    brokerContract("ClusterBroker", async () => {
      const ours = openEngine({ redisUrl: cluster.url, subscriptions });
      const theirs = openEngine({ redisUrl: cluster.url, subscriptions });
      for (const { broker } of [ours, theirs]) {
        await until(() => broker.unavailable() === undefined, "the broker to be available");
      }
      await Promise.all([ours.firstAttempt(5_000), theirs.firstAttempt(5_000)]);
      return {
        broker: ours.broker,
        peer: theirs.broker,
        async countOutside(channel) {
          const { server } = await cluster.keeperOf(await cluster.slotOf(channel));
          return Number((await server.cli("PUBSUB", "SHARDNUMSUB", channel) as unknown[])[1]);
        },
        async dispose() {
          await ours.close();
          await theirs.close();
        },
      };
    }, { test: (name, fn) => tests.push({ name, fn }) });
    for (const { name, fn } of tests) await t.step(name, fn);
  });
}
