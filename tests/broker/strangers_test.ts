/**
 * A Redis that others use too: whoever watches by a pattern is no subscriber, and numbered messages of another installation
 * take the place of none of ours.
 */
import { assertEquals } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { connected } from "../../testkit/connected.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { SHARED } from "../../testkit/nodes.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

for (const [way, env, counted] of [["dedicated", {}, "sockets"], ["shared", SHARED, "nodes"]] as const) {
  for (const history of ["100", "0"]) {
    redisTest(
      `Whoever watches by a pattern is counted nowhere, ${way}, with a history of ${history}`,
      async () => {
        await using redis = await RedisServer.start();
        await using service = await Service.start({
          REDIS_URL: redis.url,
          USERWIRE_HISTORY: history,
          ...env,
        });
        using watcher = await RedisCommands.connect({ port: redis.port });
        await watcher.command("PSUBSCRIBE", "*");
        const call = async (method: string, path: string) => {
          const init = method === "POST"
            ? { method, headers: { "content-type": "application/json" }, body: "1" }
            : { method };
          const response = await service.fetch(path, init);
          return [response.status, await response.json()] as const;
        };

        const [status, sent] = await call("POST", "/v1/users/alice/messages");
        assertEquals([status, sent[counted]], [202, 0]);
        assertEquals((await call("POST", "/v1/users/alice/messages?expect=online"))[0], 404);
        assertEquals((await call("GET", "/v1/users/alice"))[1].online, false);
        const [, kicked] = await call("DELETE", "/v1/users/alice/connections");
        assertEquals(counted === "sockets" ? kicked.closed : kicked.nodes, 0);
        if (history !== "0") {
          // Nobody is waited for: the answer comes long before its time is up.
          const waiting = call("POST", "/v1/users/alice/messages?wait=ack&timeout=30000");
          assertEquals((await withDeadline(waiting, 20_000, "the answer"))[1].acked, 0);
        }

        await using alice = await openClient(service.socketUrl("alice"));
        const [online, reached] = await call("POST", "/v1/users/alice/messages?expect=online");
        assertEquals([online, reached[counted]], [200, 1]);
        assertEquals(await alice.next(), "1");
      },
    );
  }
}

redisTest(
  "Numbered messages of another installation take the place of none of ours, and are told once",
  async () => {
    await using redis = await RedisServer.start();
    await using service = await Service.start({ REDIS_URL: redis.url });
    // The same channels, as channels know no databases, and keys of its own.
    const other = openEngine({ redisUrl: `${redis.url.replace(/\/$/, "")}/1` });
    await using stack = new AsyncDisposableStack();
    stack.defer(() => other.close());
    await connected(other);
    const staging = new Publisher(other.broker, other.history);
    await using alice = await Follower.open(service.socketUrl("alice"));

    await service.send("alice", "prod 1");
    for (let n = 1; n <= 3; n++) await staging.send("alice", { kind: "text", text: `staging ${n}` });
    for (const n of [2, 3, 4]) await service.send("alice", `prod ${n}`);
    await staging.send("alice", { kind: "text", text: "staging 4" });
    await service.send("alice", "prod 5");
    await alice.reaches(5);
    assertEquals(alice.data, [1, 2, 3, 4, 5].map((n) => `prod ${n}`));
    assertEquals(alice.gaps, []);
    alice.assertNoFault();
    await until(() => service.logged("messages of another installation").length === 1, "the log to say it");
  },
);
