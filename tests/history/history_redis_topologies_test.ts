/** The contract of a history on a real cluster and behind real Sentinels. */
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import type { HistoryLimits } from "../../src/history/history.ts";
import { historyContract } from "../contracts/history.ts";
import { runContract } from "../contracts/history_runs.ts";
import { asSteps } from "../contracts/steps.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { SentinelSet } from "../../testkit/redis_sentinel.ts";
import { type RedisServer, redisTest } from "../../testkit/redis_server.ts";

interface Place extends AsyncDisposable {
  readonly url: string;
  /** One whose clock is everybody's: they run on one machine. */
  readonly server: RedisServer;
}

async function onCluster(): Promise<Place> {
  const cluster = await ClusterSet.start();
  const { server } = cluster.nodes[0]!;
  return { url: cluster.url, server, [Symbol.asyncDispose]: () => cluster[Symbol.asyncDispose]() };
}

async function behindSentinels(): Promise<Place> {
  const set = await SentinelSet.start();
  const [server] = set.servers as [RedisServer];
  return { url: set.url, server, [Symbol.asyncDispose]: () => set[Symbol.asyncDispose]() };
}

for (
  const [where, start] of Object.entries({ "on a cluster": onCluster, "behind Sentinels": behindSentinels })
) {
  redisTest(`A history ${where} keeps its contract`, async (t) => {
    await using place = await start();
    const timeMs = async () => {
      const [seconds, micros] = await place.server.cli("TIME") as [string, string];
      return Number(seconds) * 1_000 + Number(micros) / 1_000;
    };
    const open = async ({ count, ttlMs }: HistoryLimits): Promise<Engine> => {
      const engine = openEngine({ redisUrl: place.url, history: count, historyTtlS: ttlMs / 1_000 });
      await connected(engine);
      return engine;
    };
    const openBoth = async (limits: HistoryLimits) => {
      const ours = await open(limits);
      const theirs = await open(limits);
      return {
        history: ours.history,
        broker: ours.broker,
        peer: theirs.history,
        async elapse(ms: number) {
          const endMs = await timeMs() + ms;
          await until(async () => await timeMs() > endMs, `${ms} ms to pass on Redis' clock`);
        },
        async dispose() {
          await ours.close();
          await theirs.close();
        },
      };
    };
    await asSteps(t, (test) => {
      historyContract("It", openBoth, { test });
      runContract("It", openBoth, { test });
    });
  });
}
