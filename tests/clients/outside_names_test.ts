/**
 * The names that programs outside rely on, in each language, used as somebody does who knows nothing else. They stay.
 * The nodes share a Redis: an open one, and one that asks for keys and tokens.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { Publisher } from "../../clients/npm/publisher.ts";
import { createServer } from "../../clients/npm/server.ts";
import { CLOSED, KEY, tokenFor } from "../../testkit/closed.ts";
import { done } from "../../testkit/npm_package.ts";
import { findPhp, hasPythonWebsockets, PYTHON } from "../../testkit/programs.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";

const CLIENTS = fileURLToPath(new URL("../../clients/", import.meta.url));

const PYTHON_PROGRAM = `
import asyncio, sys, userwire

open_url, closed_url, key, token = sys.argv[1:]
sender = userwire.Sender(closed_url, key=key)

async def first(messages):
    async for message in messages:
        return message.seq, message.data

async def main():
    by_user = asyncio.create_task(first(userwire.connect(open_url, user="alice")))
    by_token = asyncio.create_task(first(userwire.connect(closed_url, token=token)))
    while await asyncio.to_thread(sender.online, "alice") < 2:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(sender.send, "alice", {"order": 7})
    print(await by_user, await by_token)

asyncio.run(main())
`;

const PHP_PROGRAM = `
require '${CLIENTS}php/Userwire.php';
[, $url, $key] = $argv;
$userwire = new Userwire($url, $key);
echo $userwire->send('bob', ['order' => 7])['seq'];
`;

const php = findPhp();

redisTest("The names that programs outside rely on", async (t) => {
  await using redis = await RedisServer.start();
  await using open = await Service.start({ REDIS_URL: redis.url });
  await using closed = await Service.start({ ...CLOSED, REDIS_URL: redis.url });
  const { url } = closed.server;

  await t.step({
    name: "Python: userwire.connect with user or token, seq and data, and userwire.Sender",
    ignore: !hasPythonWebsockets(),
    async fn() {
      const args = ["-c", PYTHON_PROGRAM, open.server.url, url, KEY.key, await tokenFor("alice")];
      const written = await done(PYTHON, args, { env: { PYTHONPATH: `${CLIENTS}python` } });
      assertEquals(written, "(1, {'order': 7}) (1, {'order': 7})\n");
    },
  });

  await t.step({
    name: "PHP: new Userwire, and send",
    ignore: php === undefined,
    async fn() {
      assertEquals(await done(php!, ["-r", PHP_PROGRAM, "--", url, KEY.key]), "1");
    },
  });

  await t.step("userwire/server: createServer with send, online, ticket, kick, revoke", async () => {
    const server = createServer({ url, key: KEY.key });
    const { id, sockets } = await server.send("carol", { order: 7 }, { ttlS: 60 });
    assertMatch(id, /^[\da-f-]{36}$/);
    assertEquals([sockets, await server.online("carol")], [0, false]);
    assertEquals(typeof (await server.ticket("carol")).ticket, "string");
    assertEquals((await server.kick("carol")).closed, 0);
    assertEquals(Object.keys(await server.revoke("carol")), ["issued_before"]);
  });

  await t.step("userwire/publisher: Publisher.open with redisUrl", async () => {
    await using publisher = await Publisher.open({ redisUrl: redis.url });
    assertEquals((await publisher.send("carol", { order: 8 })).seq, 2);
  });
});
