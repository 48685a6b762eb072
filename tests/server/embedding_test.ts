/** A program that holds the service, by `src/mod.ts`. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { type App, ConfigError, loadConfig, openApp, Publisher, serve } from "../../src/mod.ts";
import { connectAlice, Inbox } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

const QUIET = { PORT: "0", USERWIRE_DRAIN_S: "0", USERWIRE_OFFLINE_AFTER_S: "1" };

Deno.test("A program answers requests, hears of users, and sends, in its own process", async () => {
  const log = memoryLog();
  const told: string[] = [];
  {
    await using service = await serve(loadConfig({ env: QUIET }), {
      log,
      onRequest: ({ user, op, data }) => ({ user, op, data }),
      onUsersChanged: (changes) =>
        void changes?.forEach(({ user, online }) => told.push(`${user} ${online}`)),
    });
    await using client = connectAlice(service.url);
    const inbox = new Inbox(client);
    assertEquals(await client.request("op", 7), { user: "alice", op: "op", data: 7 });
    const { publisher } = service.app;
    assertEquals([publisher instanceof Publisher, (await publisher.send("alice", { order: 7 })).sockets], [
      true,
      1,
    ]);
    await inbox.received(1);
    assertEquals(inbox.data, [{ order: 7 }]);
    await until(() => told.length > 0, "to hear of alice");
    assertEquals(told, ["alice true"]);
  }
  assertEquals(log.records.at(-1)?.event, "stopped");
});

Deno.test("A program with a server of its own gives the app the requests that it does not answer", async () => {
  const app: App = openApp(loadConfig({ env: QUIET }), {
    ...{ node: "mine", log: memoryLog() },
    onRequest: ({ node }) => node,
  });
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request, info) => {
    return new URL(request.url).pathname === "/mine" ? new Response("mine") : app.handle(request, info);
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  {
    await using client = connectAlice(url);
    assertEquals(await client.request("op"), "mine");
    assertEquals(await (await fetch(`${url}/mine`)).text(), "mine");
    assertEquals((await (await fetch(`${url}/readyz`)).json()).connections, 1);
  }
  assertEquals(await app.drain(0), 0);
  await app.close();
  await server.shutdown();
});

Deno.test("Settings that can't be used are all said at once, and several processes are none of this one's business", async () => {
  const { faults } = assertThrows(() => loadConfig({ env: { PORT: "x", LOG_LEVEL: "loud" } }), ConfigError);
  assertEquals(faults.length, 2);
  const env = { ...QUIET, REDIS_URL: "redis://127.0.0.1:1", USERWIRE_PROCESSES: "2" };
  await assertRejects(() => serve(loadConfig({ env })), ConfigError, "USERWIRE_PROCESSES");
});
