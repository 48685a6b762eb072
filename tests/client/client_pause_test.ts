/** `pause` and `resume`, for applications that go to the background, and the ping that hidden pages ask for. */
import { assertEquals, assertMatch } from "@std/assert";
import { connectAlice, Inbox, watchAlice } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { FakeDocument } from "../../testkit/fake_document.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";
import { Service } from "../../testkit/service.ts";

Deno.test("A paused client is away at once, and gets what was sent meanwhile when it resumes", async () => {
  await using service = await Service.start();
  await using client = connectAlice(service.server.url);
  const inbox = new Inbox(client);
  await inbox.state("open");
  await service.send("alice", 1);
  await inbox.received(1);
  client.pause();
  client.pause();
  assertEquals(client.state, "paused");
  await until(async () => await service.sockets("alice") === 0, "the service to see her go");
  assertMatch(JSON.stringify(service.logged("connection closed").at(-1)), /"code":1000/);
  await service.send("alice", 2);
  await service.send("alice", 3);
  client.resume();
  client.resume();
  await inbox.received(3);
  assertEquals(inbox.list, [1, 2, 3]);
  assertEquals(inbox.states, ["open", "paused", "connecting", "open"]);
  assertEquals(inbox.lost, [{ code: 1006, reason: "paused", opened: true, retryMs: undefined }]);
  assertEquals(service.logged("connection opened").length, 2);
});

Deno.test("A client that is paused before it begins, while it connects and while it waits makes no attempt", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  client.pause();
  await inbox.state("paused");
  assertEquals(server.attempts, 0);
  client.resume();
  const socket = await server.next(); // it says no hi
  client.pause();
  assertEquals(client.state, "paused");
  await socket.closed;
  client.resume();
  (await server.next()).close(1013);
  await inbox.until(() => inbox.lost.some(({ code }) => code === 1013), "the loss");
  client.pause();
  assertEquals(client.state, "paused");
  const { attempts } = server;
  client.resume();
  (await server.next()).hi({ pos: "e.0" });
  await inbox.state("open");
  assertEquals(server.attempts - attempts <= 1, true, "what it waited for does not come on top");
});

Deno.test("A pause tells first what the application has, and may come from a listener, and end in close", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url);
  client.on("message", ({ seq }) => seq === 2 && client.pause());
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1);
  socket.message(2);
  await watch.state("paused");
  assertEquals(await socket.closed, 1000);
  // Of the message whose listener it was nobody knows yet whether the application has it.
  assertEquals(socket.frames, [{ t: "ack", seq: 1 }]);
  assertEquals(client.position, "e.2");
  await client.close();
  client.pause();
  client.resume();
  assertEquals([client.state, server.attempts], ["closed", 1]);
});

Deno.test("A client asks for the ping that it is given, and the service keeps to its range", async () => {
  await using service = await Service.start({ USERWIRE_PING_S: "1" });
  for (const [asked, given] of [[60, 60], [1, 15], [9_999, 300], [undefined, 1]] as const) {
    await using client = connectAlice(service.server.url, { pingS: asked });
    const hi = await new Promise<{ ping: number }>((resolve) => client.on("open", resolve));
    assertEquals(hi.ping, given);
  }
});

Deno.test("A page that gets hidden connects anew, once, to be left alone for longer", async () => {
  using page = new FakeDocument();
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, { hiddenPingS: 60 });
  const inbox = new Inbox(client);
  const first = await server.next();
  assertEquals(first.url.searchParams.get("ping"), null);
  first.hi({ pos: "e.4", tag: "t" });
  await inbox.state("open");
  page.turn("hidden");
  const second = await server.next();
  assertEquals([second.url.searchParams.get("ping"), second.resume], ["60", "e.4.t"]);
  second.hi({ pos: "e.4", ping: 60 });
  await inbox.state("open");
  page.turn("visible");
  page.turn("hidden");
  second.message(5);
  await inbox.received(1);
  assertEquals([server.attempts, inbox.gaps], [2, []]);
});

Deno.test("A page that gets hidden keeps the connection where nothing is kept for it", async () => {
  using page = new FakeDocument();
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, { hiddenPingS: 60 });
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi();
  await inbox.state("open");
  page.turn("hidden");
  socket.send({ t: "m", ts: 1, data: "x" });
  await inbox.received(1);
  assertEquals(server.attempts, 1);
});
