/** A node that is emptied and does not end: by the API, by the command, by a signal. Also the level of its log. */
import { assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { until } from "../../testkit/deadline.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

Deno.test("A node that drains sends its clients away, takes no new ones, and goes on until that is taken back", async () => {
  await using service = await Service.start({ USERWIRE_DRAIN_S: "20" });
  const call = async (method: string) => {
    const response = await service.fetch("/v1/drain", { method });
    return [response.status, await response.json()];
  };
  assertEquals(await call("GET"), [200, { draining: false, left: 0 }]);
  await using alice = await RawSocket.open(service.socketUrl("alice"));
  await using bob = await openClient(service.socketUrl("bob"), "userwire.v1");
  await bob.next();
  const [status, begun] = await call("POST");
  assertEquals([status, begun.draining, begun.of], [202, true, 2]);
  assertEquals((await alice.readClose()).code, 1012);
  assertEquals(JSON.parse(String(await bob.next())).t, "bye");
  assertEquals((await bob.closed).code, 1012);

  // One that has not answered is still there; a second call begins nothing.
  const [, again] = await call("POST");
  assertEquals([again.since, again.of], [begun.since, 2]);
  assertEquals(service.logged("draining").map(({ fields }) => fields), [{ sockets: 2, window_s: 20 }]);
  assertEquals((await service.readiness()).why, "The node is draining");
  await using late = await RawSocket.open(service.socketUrl("carol"));
  assertEquals([late.answer.status, JSON.parse(late.answer.body).code], [503, "draining"]);
  assertEquals((await service.send("alice", "kept")).status, 202);
  await alice.sendClose(1012);
  await service.isEmpty();
  await until(() => service.logged("drained").length === 1, "the drain to be over");
  assertEquals((await call("GET"))[1].left, 0);

  assertEquals(await call("DELETE"), [200, { draining: false, left: 0 }]);
  assertEquals((await service.readiness()).status, 200);
  await using back = await openClient(service.socketUrl("alice"));
  assertEquals(back.socket.readyState, WebSocket.OPEN);
  assertEquals((await call("DELETE"))[1].left, 1);
  assertEquals(service.logged("draining taken back").length, 1);
});

Deno.test("A drain that is taken back, or overtaken by the end, leaves no client between", async () => {
  await using service = await Service.start({ USERWIRE_DRAIN_S: "3600" });
  await using sockets = new AsyncDisposableStack();
  const clients = [];
  // Fifty go in the first step, and the others wait for theirs.
  for (let i = 0; i < 60; i++) {
    clients.push(sockets.use(await openClient(service.socketUrl(`user-${i % 5}`))));
  }
  const { draining, connections } = service.server.app;
  draining.start();
  draining.stop();
  const { size } = connections;
  assertEquals(size > 0 && size < 60, true, `${size} are left`);
  await using alice = await openClient(service.socketUrl("alice"));
  draining.start();
  draining.stop();
  draining.start();
  assertEquals(service.logged("draining").length, 3);
  await service.server.app.drain(0);
  assertEquals((await alice.closed).code, 1012);
  for (const client of clients) assertEquals((await client.closed).code, 1012);
});

Deno.test("Who was sent away counts no longer for the user, also while the socket does not answer the close", async () => {
  await using service = await Service.start({
    USERWIRE_MAX_CONNECTIONS_PER_USER: "1",
    USERWIRE_DRAIN_S: "20",
  });
  await using old = await RawSocket.open(service.socketUrl("alice"));
  service.server.app.draining.start();
  await old.readClose();
  assertEquals(service.server.app.draining.stop().left, 1);
  await using fresh = await openClient(service.socketUrl("alice"));
  assertEquals(fresh.socket.readyState, WebSocket.OPEN);
  await old.sendClose(1012);
});

Deno.test("userwire drain and log-level tell a running node what to do, for a key of scope admin", async (t) => {
  const admin = newKey("admin", { scopes: ["admin"] });
  const shop = newKey("shop", { scopes: ["send", "read"] });
  await using service = await Service.start({ USERWIRE_API_KEYS: `${admin.line},${shop.line}` });
  const run = async (args: string[], key = admin.key) => {
    const io = new Terminal();
    const code = await io.run(args, { USERWIRE_URL: service.server.url, USERWIRE_KEY: key });
    return { code, out: io.stdout, err: io.stderr };
  };
  await t.step("log-level", async () => {
    const levels = (http: string, other: string) =>
      `service: ${other}, http: ${http}, session: ${other}, redis: ${other}, auth: ${other}, webhooks: ${other}\n`;
    assertEquals(await run(["log-level"]), { code: 0, out: levels("debug", "debug"), err: "" });
    assertEquals((await run(["log-level", "warn"])).out, levels("warn", "warn"));
    assertEquals((await run(["log-level", "error", "--area", "http"])).out, levels("error", "warn"));
    assertEquals(JSON.parse((await run(["log-level", "--json"])).out).areas.http, "error");
    const loud = await run(["log-level", "loud"]);
    assertEquals(loud.code, 2);
    assertMatch(loud.err, /Allowed choices are debug, info, warn, error/);
    assertEquals((await run(["log-level", "info", "--area", "kitchen"])).code, 2);
    assertMatch((await run(["log-level", "--area", "http"])).err, /--area needs a level/);
  });
  await t.step("drain", async () => {
    assertEquals((await run(["drain", "--status"])).out, "not draining: 0 sockets\n");
    assertEquals(await run(["drain"]), { code: 0, out: "draining: 0 of 0 sockets left\n", err: "" });
    assertEquals(JSON.parse((await run(["drain", "--status", "--json"])).out).draining, true);
    assertEquals((await run(["drain", "--cancel"])).out, "not draining: 0 sockets\n");
    assertEquals((await run(["drain", "--cancel", "--status"])).code, 2);
  });
  await t.step("another key may not", async () => {
    for (const args of [["drain"], ["log-level"], ["log-level", "debug"]]) {
      const { code, err } = await run(args, shop.key);
      assertEquals(code, 1);
      assertMatch(err, /answered 403/);
    }
    assertEquals(service.server.app.draining.isOn, false);
  });
});

Deno.test("SIGUSR1 drains a process, and does not end it", async () => {
  await using service = await ProcessService.start({ USERWIRE_DRAIN_S: "1" });
  await using alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  service.signal("SIGUSR1");
  assertEquals((await alice.closed).code, 1012);
  await service.logged("drained");
  const answer = await fetch(new URL("/v1/drain", service.url), { method: "DELETE" });
  assertEquals(await answer.json(), { draining: false, left: 0 });
  service.signal("SIGTERM");
  assertEquals((await service.ended()).code, 0);
});
