/** The end of a client, by its own will in every state, and what broken networks do that no server can be made to. */
import { assertEquals, assertMatch } from "@std/assert";
import { connect, type Lost } from "../../src/client/mod.ts";
import { connectAlice, QUICK, Watch, watchAlice } from "../../testkit/client_watch.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { connectFake } from "../../testkit/fake_socket.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

/** A client that is asked for its token, and does not get it before the test says so. */
function ask(server: ScriptedServer) {
  const token = Promise.withResolvers<string>();
  const { promise: asked, resolve } = Promise.withResolvers<void>();
  const asking = connect(server.url, {
    token() {
      resolve();
      return token.promise;
    },
  });
  return { asking, asked, token };
}

Deno.test("Client closes with code 1000 and tells everybody once", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  await watch.state("open");
  const closing = client.close();
  assertEquals(client.state, "closed");
  assertEquals(await closing, { code: 1000, reason: "" });
  assertEquals(await socket.closed, 1000);
  assertEquals(await client.close(), { code: 1000, reason: "" });
  assertEquals(watch.states, ["open", "closed"]);
  assertEquals(watch.lost, []);
});

Deno.test("Client can be closed in every state", async () => {
  await using server = new ScriptedServer();
  const atOnce = connectAlice(server.url);
  await atOnce.close();

  const { asking, asked, token } = ask(server);
  await asked;
  await asking.close();
  token.resolve("late");

  server.refuse(503);
  const { client: waiting, watch } = watchAlice(server.url, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await watch.state("waiting");
  await waiting.close();

  const offline = connectAlice(server.url);
  const socket = await server.next();
  dispatchEvent(new Event("offline"));
  await socket.closed;
  await offline.close();
  // A client that is closed hears nothing of the browser any more.
  dispatchEvent(new Event("online"));
  for (const client of [atOnce, asking, waiting, offline]) assertEquals(client.state, "closed");
});

Deno.test("Client can be closed by whoever it tells something", async () => {
  await using server = new ScriptedServer();
  for (const name of ["state", "open", "message", "lost"] as const) {
    const { client, watch } = watchAlice(server.url);
    client.on(name, () => void client.close());
    let isTold = false;
    client.on("open", () => isTold = true);
    const socket = await server.next();
    socket.hi({ pos: "e.0" });
    socket.message(1);
    socket.close(1012);
    await watch.closed();
    assertEquals(client.state, "closed", name);
    assertEquals(isTold, name !== "state", "A client that is closed is not told that it is open");
  }
  assertEquals(server.attempts, 4);
});

Deno.test("Client that is closed as it begins to connect asks for no token", async () => {
  await using server = new ScriptedServer();
  let tokens = 0;
  const client = connect(server.url, { token: () => Promise.resolve(`t${++tokens}`), backoff: QUICK });
  const watch = new Watch(client);
  client.on("state", (state) => void (state === "connecting" && client.close()));
  (await server.next()).close(1012);
  await watch.closed();
  assertEquals([tokens, server.attempts], [1, 1]);
});

Deno.test("Client does not wait long for a server that does not answer its close", async () => {
  const { client, socket: nth } = connectFake();
  const socket = await nth(1);
  socket.frame({ t: "hi", ping: 25 });
  assertEquals(await withDeadline(client.close(), 10_000, "the client to close"), { code: 1000, reason: "" });
  assertEquals(socket.closedWith, 1000);
});

Deno.test("Client goes by the bye when the connection breaks after it", async () => {
  for (const code of [0, 1006]) {
    const { watch, socket: nth } = connectFake();
    const socket = await nth(1);
    socket.frame({ t: "hi", ping: 25 });
    socket.frame({ t: "bye", code: 4403, why: "kicked" });
    socket.onclose!({ code, reason: "" });
    assertEquals(await watch.closed(), { code: 4403, reason: "kicked" });
  }
});

Deno.test("Client takes what its socket says about a failure as the reason", async () => {
  const { client, watch, socket: nth } = connectFake();
  const socket = await nth(1);
  socket.onerror!({ message: "connection refused" });
  socket.onclose!({ code: 0, reason: "" });
  await nth(2);
  const [{ retryMs: _, ...lost }] = watch.lost as [Lost];
  assertEquals(lost, { code: 1006, reason: "connection refused", opened: false });
  await client.close();
});

Deno.test("Client takes an error for the end of a socket where no close follows", async () => {
  const { client, watch, socket: nth } = connectFake();
  // Node 22 leaves it connecting; Chromium makes it closed where the page's policy forbids the address.
  for (const [i, readyState] of [0, 3].entries()) {
    const socket = await nth(i + 1);
    socket.readyState = readyState;
    socket.onerror!({ message: "non-101 status code" });
  }
  const third = await nth(3);
  assertEquals(watch.lost.map(({ reason }) => reason), Array(2).fill("non-101 status code"));
  // Where one follows, that alone is the end.
  third.readyState = 3;
  third.onerror!({});
  third.onclose!({ code: 1013, reason: "busy" });
  await nth(4);
  assertEquals(watch.lost.slice(2).map(({ code, reason }) => [code, reason]), [[1013, "busy"]]);
  await client.close();
});

Deno.test("Client goes on when a socket can't even be made", async () => {
  const failures = Array.from({ length: 2 }, () => new Error("The page is secure, the address is not"));
  const { client, watch, socket: nth } = connectFake({ failures });
  await nth(1);
  assertEquals(watch.errors.length, 2);
  assertMatch(watch.lost[0]!.reason, /^The page is secure/);
  await client.close();
});
