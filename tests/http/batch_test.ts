/**
 * A list of users over Redis is a script for each page of them, and a few pages are one round trip. Redis' answers are held
 * back until it has carried out all of the batch: a second round trip would never begin, and so a script that Redis does
 * not know would never be run. How often EVAL is called says nothing of that: the node calls it once in a while, too.
 */
import { assert, assertEquals } from "@std/assert";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

/** Two pages, which are under way at one time. */
const RECIPIENTS = 200;
/** What the node tries once in a while comes to less; a script for each user, to more. */
const FEW = 50;
/** All together not more than goes out as one portion. */
const DATA = "x".repeat(64);

for (const history of ["100", "0"]) {
  redisTest(
    `A batch to 200 users takes few scripts and one round trip, with a history of ${history}`,
    async (t) => {
      await using redis = await RedisServer.start();
      await using proxy = await TcpProxy.start(redis.port);
      await using service = await Service.start({
        REDIS_URL: proxy.through(redis.url),
        USERWIRE_HISTORY: history,
        // Nobody is to run out of patience while the answers are held back.
        USERWIRE_REDIS_TIMEOUT_MS: "60000",
      });
      const isReady = () => until(async () => (await service.readiness()).status === 200, "readiness");

      await isReady();
      await t.step("as the first thing that is sent", () => assertOneRoundTrip(service, proxy, redis));
      await redis.restart();
      await isReady();
      await t.step("after a restart of Redis", () => assertOneRoundTrip(service, proxy, redis));
    },
  );
}

async function assertOneRoundTrip(
  service: Service,
  proxy: TcpProxy,
  redis: RedisServer,
): Promise<void> {
  const before = await calls(redis);
  proxy.stall();
  const answering = service.fetch("/v1/messages", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      items: [{ to: Array.from({ length: RECIPIENTS }, (_, i) => `user-${i}`), data: DATA }],
    }),
  });
  const made = async (command: string) => {
    const after = await calls(redis);
    return (after.get(command) ?? 0) - (before.get(command) ?? 0);
  };
  try {
    await until(async () => await made("publish") >= RECIPIENTS, "Redis to have all of the batch");
  } finally {
    proxy.flow();
  }
  const answer = await withDeadline(answering, 10_000, "the answer to the batch");
  const { results } = await answer.json();
  assertEquals([answer.status, results[0].sockets, Object.keys(results[0].users).length], [
    200,
    0,
    RECIPIENTS,
  ]);
  assertEquals(results[0].error, undefined);
  // Nothing of it was sent a second time.
  const others = await made("publish") - RECIPIENTS;
  assert(others < FEW, `${others} more`);
  const scripts = await made("evalsha");
  assert(scripts >= 2 && scripts < FEW, `${scripts} scripts`);
}

/** How often each command was called. */
async function calls(redis: RedisServer): Promise<Map<string, number>> {
  const info = String(await redis.cli("INFO", "commandstats"));
  return new Map(
    Array.from(info.matchAll(/^cmdstat_(\S+):calls=(\d+)/gm), ([, name, count]) => [name!, Number(count)]),
  );
}
