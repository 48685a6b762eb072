/** `GET /v1/nodes`: who comes, goes, drains and dies, as the others see it. */
import { assert, assertEquals } from "@std/assert";
import manifest from "../../deno.json" with { type: "json" };
import type { NodeState } from "../../src/http/api/shapes.ts";
import { until } from "../../testkit/deadline.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { type Env, SHARED } from "../../testkit/nodes.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

/** After that a node that leaves waits no more until it is listed no more. */
const LEAVE_MS = 300;
const KEY = "userwire:{userwire:nodes}:alive";

async function nodesOf(service: Service): Promise<NodeState[]> {
  const response = await service.fetch("/v1/nodes");
  assertEquals(response.status, 200);
  return (await response.json()).items;
}

async function namesOf(service: Service): Promise<string[]> {
  return (await nodesOf(service)).map(({ node }) => node);
}

Deno.test("In memory a node lists itself, as it is now", async () => {
  const startMs = Date.now();
  await using service = await Service.start({ USERWIRE_NODE: "only" });
  await using _alice = await openClient(service.socketUrl("alice"));
  const [{ since, ...node }, ...others] = await nodesOf(service) as [NodeState];
  assertEquals(node, { node: "only", version: manifest.version, connections: 1, draining: false });
  assert(Date.parse(since) >= startMs && Date.parse(since) <= Date.now(), since);
  assertEquals(others, []);
  service.server.app.draining.start();
  assertEquals((await nodesOf(service))[0]!.draining, true);
});

for (const env of [{}, SHARED] as Env[]) {
  const kind = env.USERWIRE_SUBSCRIPTIONS ?? "dedicated";
  redisTest(`Nodes with ${kind} subscriptions list each other`, async (t) => {
    await using redis = await RedisServer.start();
    const start = (node: string, more: Env = {}) =>
      Service.start({ REDIS_URL: redis.url, ...env, USERWIRE_NODE: node, ...more });
    await using a = await start("a");
    const b = await start("b");
    await t.step("as soon as they have started", async () => {
      await using _alice = await openClient(a.socketUrl("alice"));
      const listed = (await nodesOf(a)).map(({ node, connections, subscriptions }) => [
        ...[node, connections, subscriptions],
      ]);
      assertEquals(listed, [["a", 1, kind], ["b", 0, kind]]);
      assertEquals(await namesOf(b), ["a", "b"]);
    });
    await t.step("those of another installation are not among them", async () => {
      await using other = await start("other", { USERWIRE_CHANNEL_PREFIX: "other:" });
      assertEquals([await namesOf(other), await namesOf(a)], [["other"], ["a", "b"]]);
    });
    await t.step("two of one name are two", async () => {
      using _held = new HeldTimers(LEAVE_MS);
      await using _second = await start("b");
      assertEquals(await namesOf(a), ["a", "b", "b"]);
    });
    await t.step("one that drains, and takes it back", async () => {
      const isDraining = async () => (await nodesOf(a)).find(({ node }) => node === "b")!.draining;
      b.server.app.draining.start();
      await until(isDraining, "the drain to be seen");
      b.server.app.draining.stop();
      await until(async () => !await isDraining(), "the end of the drain to be seen");
    });
    await t.step("one that ended is gone at once", async () => {
      using _held = new HeldTimers(LEAVE_MS);
      await b.server.shutdown();
      assertEquals(await namesOf(a), ["a"]);
    });
    await t.step(
      "one that died is gone when its time is over, or was set to what no node can have",
      async () => {
        const redisMs = async () => {
          const [seconds, micros] = (await redis.cli("TIME") as string[]).map(Number) as [number, number];
          return seconds * 1_000 + Math.ceil(micros / 1_000);
        };
        const nowMs = await redisMs();
        const state = JSON.stringify({ ...(await nodesOf(a))[0], node: "dead" });
        for (const endsMs of [nowMs + 10_000, nowMs - 1_000, nowMs + 3_600_000]) {
          await redis.cli("HSET", KEY, "its id", `${endsMs} ${state}`);
          assertEquals(await namesOf(a), endsMs === nowMs + 10_000 ? ["a", "dead"] : ["a"]);
        }
        await redis.cli("HSET", KEY, "garbage", "what is this");
        assertEquals(await namesOf(a), ["a"]);
        const kept = await redis.cli("HGETALL", KEY) as string[];
        assertEquals(kept.length, 2, "the others were taken out");
        const endsMs = parseInt(kept[1]!);
        const laterMs = await redisMs();
        assert(endsMs > nowMs && endsMs <= laterMs + 15_000, `${endsMs - nowMs} ms`);
        const ttlMs = Number(await redis.cli("PTTL", KEY));
        assert(ttlMs > 0 && ttlMs <= 15_000, `${ttlMs} ms`);
      },
    );
    await t.step("after Redis has lost everything", async () => {
      await redis.cli("FLUSHALL");
      assertEquals(await namesOf(a), ["a"]);
    });
  });
}
