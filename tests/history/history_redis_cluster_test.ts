/** The contract of a history on a real cluster; all tests on one cluster. */
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import type { HistoryLimits } from "../../src/history/history.ts";
import { historyContract } from "../contracts/history.ts";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { redisTest } from "../../testkit/redis_server.ts";

redisTest("A history on a cluster keeps its contract", async (t) => {
  await using cluster = await ClusterSet.start();
  const { server } = cluster.nodes[0]!;
  const timeMs = async () => {
    const [seconds, micros] = await server.cli("TIME") as [string, string];
    return Number(seconds) * 1_000 + Number(micros) / 1_000;
  };
  const openOn = async ({ count, ttlMs }: HistoryLimits): Promise<Engine> => {
    const engine = openEngine({ redisUrl: cluster.url, history: count, historyTtlS: ttlMs / 1_000 });
    await engine.firstAttempt(5_000);
    return engine;
  };
  const tests: { name: string; fn: () => Promise<void> }[] = [];
  historyContract("ClusterHistory", async (limits) => {
    const ours = await openOn(limits);
    const theirs = await openOn(limits);
    return {
      history: ours.history,
      broker: ours.broker,
      peer: theirs.history,
      async elapse(ms) {
        const endMs = await timeMs() + ms;
        await until(async () => await timeMs() > endMs, `${ms} ms to pass on Redis' clock`);
      },
      async dispose() {
        await ours.close();
        await theirs.close();
      },
    };
  }, { test: (name, fn) => tests.push({ name, fn }) });
  for (const { name, fn } of tests) await t.step(name, fn);
});
