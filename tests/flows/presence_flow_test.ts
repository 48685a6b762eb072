/**
 * What the backend hears of users that come and go, through real services, Redis and sockets; its table of who is online is
 * kept by the receiver's rule alone.
 */
import { assert, assertEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient, openPatiently } from "../../testkit/ws_client.ts";

const WAIT_MS = 30_000;
const SOON = { USERWIRE_OFFLINE_AFTER_S: "1" };

/** Plays a reload, for which a user has so many seconds; false where the machine took about as long for it. */
async function playsReload(graceS: number): Promise<boolean> {
  await using redis = await RedisServer.start();
  await using receiver = new WebhookReceiver();
  const env = { REDIS_URL: redis.url, ...receiver.env, USERWIRE_OFFLINE_AFTER_S: `${graceS}` };
  await using here = await Service.start(env);
  await using there = await Service.start(env);
  const first = await openPatiently(here.socketUrl("alice"));
  await receiver.until(() => receiver.online().includes("alice"), "alice to be online", WAIT_MS);
  const second = await openPatiently(there.socketUrl("alice"), "userwire.v1");
  await first.close();
  // Gone for a moment, and back elsewhere.
  const goneMs = performance.now();
  await second.close();
  await using third = await openClient(here.socketUrl("alice"));
  if (performance.now() - goneMs > graceS * 500) return false;
  // Who comes and goes after it is told after it.
  await (await openClient(there.socketUrl("bob"))).close();
  await receiver.until(() => receiver.changesOf("bob").length === 2, "bob to come and go", WAIT_MS);
  assertEquals(receiver.changesOf("bob"), [true, false]);
  assertEquals(receiver.changesOf("alice"), [true]);
  await third.close();
  await receiver.until(() => receiver.changesOf("alice").length === 2, "alice to go", WAIT_MS);
  assertEquals(receiver.changesOf("alice"), [true, false]);
  assertEquals([receiver.online(), receiver.forged], [[], 0]);
  return true;
}

redisTest(
  "The backend hears of a user's first and last socket on any node, and of none between",
  async () => {
    for (const graceS of [1, 4, 16]) if (await playsReload(graceS)) return;
    assert(false, "No reload was shorter than the time that a user has for it");
  },
);

redisTest(
  "Users of a node that is killed are told offline once each, and none of those that came back",
  async () => {
    await using redis = await RedisServer.start();
    await using receiver = new WebhookReceiver();
    const env = { REDIS_URL: redis.url, ...receiver.env, ...SOON };
    await using there = await Service.start(env);
    const users = Array.from({ length: 60 }, (_, i) => `user-${String(i).padStart(2, "0")}`);
    const back = users.filter((_, i) => i % 3 === 0);
    await using stack = new AsyncDisposableStack();
    {
      const here = stack.use(await ProcessService.start(env));
      for (const user of users) await openPatiently(here.socketUrl(user));
      await receiver.until(() => receiver.online().length === users.length, "all to be online", WAIT_MS);
      here.signal("SIGKILL");
    }
    for (const user of back) stack.use(await openPatiently(there.socketUrl(user)));
    const gone = () => users.filter((user) => receiver.changesOf(user).at(-1) === false);
    await until(
      async () => {
        // A round begins each half a minute: the next one is brought forward.
        await redis.cli("DEL", "userwire:{userwire:events}:sweeper");
        return gone().length === users.length - back.length;
      },
      "the others to be told offline",
      WAIT_MS,
      () => `${gone().length} are`,
    );
    assertEquals(receiver.online(), back);
    for (const user of users) {
      assertEquals(
        receiver.changesOf(user),
        back.includes(user) ? [true] : [true, false],
      );
    }
  },
);

redisTest("A Redis that lost its data, or hung up, leaves the backend's table right", async () => {
  await using redis = await RedisServer.start();
  await using receiver = new WebhookReceiver();
  await using service = await Service.start({ REDIS_URL: redis.url, ...receiver.env, ...SOON });
  const alice = await openPatiently(service.socketUrl("alice"));
  await using _bob = await openPatiently(service.socketUrl("bob"));
  await receiver.until(() => receiver.online().length === 2, "both to be online", WAIT_MS);
  const before = receiver.unknown;
  receiver.table.delete("bob"); // as if it had been told otherwise by what is lost now
  await redis.cli("FLUSHALL");
  await receiver.until(
    () => receiver.unknown > before && receiver.online().length === 2,
    "to hear that something is unknown, and who is online",
    WAIT_MS,
  );
  await redis.restart();
  await alice.close();
  await receiver.until(() => receiver.unknown > before + 1, "to hear it again", WAIT_MS);
  await receiver.until(() => receiver.online().join() === "bob", "alice to be offline", WAIT_MS);
});

redisTest(
  "Who was told offline while their subscription was lost is told online when it is restored",
  async () => {
    await using redis = await RedisServer.start();
    await using receiver = new WebhookReceiver();
    await using service = await Service.start({ REDIS_URL: redis.url, ...receiver.env, ...SOON });
    await using alice = await openPatiently(service.socketUrl("alice"));
    await receiver.until(() => receiver.online().join() === "alice", "alice to be online", WAIT_MS);
    using operator = await RedisCommands.connect({ port: redis.port });
    // None beside this one and the service's for commands gets in, as when ten thousand dial at once.
    await operator.command("CONFIG", "SET", "maxclients", "2");
    await operator.command("CLIENT", "KILL", "TYPE", "pubsub");
    await until(
      async () => {
        // A round begins each half a minute: the next one is brought forward.
        await operator.command("DEL", "userwire:{userwire:events}:sweeper");
        return receiver.online().length === 0;
      },
      "alice to be told offline",
      WAIT_MS,
    );
    await operator.command("CONFIG", "SET", "maxclients", "1000");
    await receiver.until(() => receiver.online().join() === "alice", "alice to be told online", WAIT_MS);
    assertEquals([receiver.changesOf("alice"), alice.socket.readyState], [
      [true, false, true],
      WebSocket.OPEN,
    ]);
  },
);

Deno.test("Without Redis users are told as well, also to a listener in the process", async () => {
  await using receiver = new WebhookReceiver();
  await using service = await Service.start({ ...receiver.env, ...SOON });
  const alice = await openClient(service.socketUrl("alice"));
  await receiver.until(() => receiver.online().includes("alice"), "alice to be online");
  await alice.close();
  await receiver.until(() => receiver.online().length === 0, "alice to be offline", WAIT_MS);
  // The backend knows what it has answered before the service does.
  const delivered = /^userwire_webhooks_total\{type="users.changed",outcome="delivered"\} 2$/m;
  await until(
    async () => delivered.test(await (await service.fetch("/metrics")).text()),
    "both to be counted",
  );
});
