/** The rights in Redis that docs/events.md adds to those of the main path: enough for everything, and none of them too many. */
import { assert, assertEquals } from "@std/assert";
import { until } from "../../testkit/deadline.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { EventNode } from "../contracts/events.ts";

redisTest("Events work with no more rights in Redis than docs/events.md gives", async () => {
  const read = (page: string) => Deno.readTextFile(new URL(`../../docs/${page}`, import.meta.url));
  const main = /^ACL SETUSER userwire (.+)$/m.exec(await read("redis.md"))![1]!.replace(
    ">PASSWORD",
    ">s3cret",
  );
  const added = /need.? these rights[^`]+`([^`]+)`/.exec(await read("events.md"))?.[1]?.split(/\s+/);
  assert(added, "docs/events.md names them");
  await using redis = await RedisServer.start();
  await redis.cli("ACL", "SETUSER", "userwire", ...main.split(" "), ...added);
  await redis.cli("CONFIG", "RESETSTAT");
  await redis.cli("ACL", "LOG", "RESET");
  {
    const url = redis.url.replace("redis://", "redis://userwire:s3cret@");
    await using node = await new EventNode(url, "a", { holdMs: 1 }).ready();
    await node.store.note(["alice", "bob"], ["alice"]);
    await node.store.sweep();
    await until(() => node.store.settle(), "alice to be looked at");
    await node.store.putOff((await node.store.take(1)).entries[0]!.id);
    await node.store.watch({ token: "t", id: "m", ts: 1, afterMs: 1 }, ["alice", "bob"]);
    await node.store.sent({ token: "t", id: "m", ts: 1, afterMs: 1 }, ["alice"], 1);
    await node.store.unwatch("t", ["bob"]);
    await until(() => node.store.tellUnacked(), "alice to be told of");
    await redis.cli("DEL", "userwire:{userwire:events}:unacked", "userwire:{userwire:events}:meta");
    await node.store.watch({ token: "u", id: "m", ts: 1, afterMs: 1 }, ["carol"]);
    await redis.cli("DEL", "userwire:{userwire:events}:unacked");
    await until(() => node.store.tellUnacked(), "carol to be told of");
    // One that was taken, and is there no more.
    const [entry] = (await node.store.take(1)).entries;
    await redis.cli("XDEL", "userwire:{userwire:events}:outbox", entry!.id.slice("evt_".length));
    await until(async () => {
      await node.drain();
      return await redis.cli("XLEN", "userwire:{userwire:events}:outbox") === 1;
    }, "all but what is put off to be carried");
  }
  assertEquals(await redis.cli("ACL", "LOG"), [], "nothing was denied");
  const used = String(await redis.cli("INFO", "commandstats"));
  const idle = added.map((right) => right.slice(1)).filter((command) =>
    !new RegExp(`^cmdstat_${RegExp.escape(command)}:`, "m").test(used)
  );
  assertEquals(idle, []);
});
