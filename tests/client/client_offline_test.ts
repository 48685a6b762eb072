/** What the browser says about the network and the page, and what the client makes of it. */
import { assert, assertEquals } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { watchAlice } from "../../testkit/client_watch.ts";
import { FakeDocument } from "../../testkit/fake_document.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

/** A back-off with which a client makes no attempt while it is offline, as it else does after the longest wait. */
const PATIENT = { baseMs: 1, maxMs: 60_000 };

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

Deno.test("Client lets go of its socket when the browser is offline, and resumes when it is online", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url, { backoff: PATIENT });
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.5" });
  await watch.state("open");
  dispatchEvent(new Event("offline"));
  assertEquals(client.state, "offline");
  assertEquals(watch.lost, [{ code: 1006, reason: "offline", opened: true, retryMs: undefined }]);
  await first.closed;
  dispatchEvent(new Event("online"));
  const second = await server.next();
  assertEquals(second.resume, "e.5");
  second.hi({ pos: "e.5", resumed: true });
  await watch.state("open");
  assertEquals(watch.states, ["open", "offline", "waiting", "connecting", "open"]);
  // Being online when it is online already is no news.
  dispatchEvent(new Event("online"));
  assertEquals(client.state, "open");
});

Deno.test("Client makes no attempt while it is offline, but one now and then", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 1, maxMs: 300 } });
  await using _ = client;
  const first = await server.next();
  first.hi();
  await watch.state("open");
  const offlineAt = performance.now();
  dispatchEvent(new Event("offline"));
  await server.next();
  assert(performance.now() - offlineAt >= 295, "The browser may be wrong, but not so soon");
});

Deno.test("Client that was begun offline tries once, and then again as soon as it is online", async () => {
  await using server = new ScriptedServer();
  server.refuse(503);
  Object.defineProperty(navigator, "onLine", { value: false, configurable: true });
  try {
    const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 1, maxMs: 60_000 } });
    await using _ = client;
    await watch.losses(1);
    assertEquals([client.state, watch.lost[0]!.retryMs], ["offline", undefined]);
    dispatchEvent(new Event("online"));
    (await server.next()).hi();
    await watch.state("open");
  } finally {
    delete (navigator as { onLine?: boolean }).onLine;
  }
});

Deno.test("Client that waits for the next attempt, or for a token, waits for the network instead", async () => {
  await using server = new ScriptedServer();
  server.refuse(503);
  const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await watch.state("waiting");
  dispatchEvent(new Event("offline"));
  assertEquals(client.state, "offline");
  await client.close();

  const { asking, asked, token } = ask(server);
  await asked;
  dispatchEvent(new Event("offline"));
  assertEquals(asking.state, "offline");
  token.resolve("late");
  await token.promise;
  await asking.close();
  assertEquals(server.attempts, 1, "A token that came too late is not used");
});

Deno.test("Client begins with the shortest wait again when the network was at fault", async () => {
  await using server = new ScriptedServer();
  server.refuse(...Array(8).fill(503));
  const { random } = Math;
  Math.random = () => 1;
  try {
    const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 2, maxMs: 60_000 } });
    await using _ = client;
    client.on("lost", () => {
      if (watch.lost.length !== 6) return;
      dispatchEvent(new Event("offline"));
      dispatchEvent(new Event("online"));
    });
    await watch.losses(7);
    assertEquals(watch.lost.map(({ retryMs }) => retryMs), [2, 4, 8, 16, 32, 64, 4]);
  } finally {
    Math.random = random;
  }
});

Deno.test("Client keeps its socket in a hidden page, but makes new attempts rarely until it is seen", async () => {
  using document = new FakeDocument();
  await using server = new ScriptedServer();
  const MAX_MS = 400;
  const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 1, maxMs: MAX_MS } });
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.0" });
  await watch.state("open");
  document.turn("hidden");
  first.message(1);
  const iterator = client[Symbol.asyncIterator]();
  assertEquals((await iterator.next()).value?.seq, 1, "The socket is still there");

  const lostAt = performance.now();
  first.close(1012);
  const second = await server.next();
  assert(performance.now() - lostAt >= 395, "A hidden page has time");
  second.hi({ pos: "e.1", resumed: true });
  await watch.state("open");

  {
    using _held = new HeldTimers(MAX_MS);
    second.close(1012);
    await watch.state("waiting");
    document.turn("visible");
    const third = await server.next(); // a page that is seen waits for no timer
    third.hi({ pos: "e.1", resumed: true });
  }
});
