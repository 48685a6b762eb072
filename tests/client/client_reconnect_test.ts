/**
 * When the client comes back and when it stays away, rule by rule, against a server that plays every ending. Waits are
 * short by option; chance is taken out where their lengths are compared.
 */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { connectAlice, QUICK, watchAlice } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

/** Runs the body with a `Math.random` that always takes the whole. */
async function withoutChance(body: () => Promise<void>): Promise<void> {
  const { random } = Math;
  Math.random = () => 1;
  try {
    await body();
  } finally {
    Math.random = random;
  }
}

for (const code of [1001, 1005, 1009, 1011, 1012, 1013, 3000, 4000, 4399, 4503, 4508]) {
  Deno.test(`Client comes back after code ${code} and resumes where it was`, async () => {
    await using server = new ScriptedServer();
    await using client = connectAlice(server.url);
    const first = await server.next();
    assertStrictEquals(first.resume, null);
    first.hi({ pos: "e.0" });
    // Deno sends no code for 1005, which is what it means.
    first.close(code);
    const second = await server.next();
    assertEquals(second.resume, "e.0");
    second.hi({ pos: "e.0", resumed: true });
    await until(() => client.state === "open", "the client to be open");
  });
}

for (const code of [1000, 4400, 4401, 4403, 4408, 4409, 4429, 4499]) {
  Deno.test(`Client stays away after code ${code} and says why`, async () => {
    await using server = new ScriptedServer();
    const { client, watch } = watchAlice(server.url);
    const socket = await server.next();
    socket.hi();
    socket.close(code, "because");
    // A timer that would bring it back fails the test.
    assertEquals(await watch.closed(), { code, reason: "because" });
    assertEquals(watch.states, ["open", "closed"]);
    assertEquals(watch.lost, [{ code, reason: "because", opened: true, retryMs: undefined }]);
    assertEquals(client.state, "closed");
    assertEquals(server.attempts, 1);
  });
}

Deno.test("Client comes back after a refused handshake, with nothing to resume from", async () => {
  await using server = new ScriptedServer();
  server.refuse(401, 503, 500);
  const { client, watch } = watchAlice(server.url);
  await using _ = client;
  const socket = await server.next();
  assertStrictEquals(socket.resume, null);
  assertEquals(watch.lost.map(({ code, opened }) => [code, opened]), [[1006, false], [1006, false], [
    1006,
    false,
  ]]);
  assertEquals(server.attempts, 4);
});

Deno.test("Client comes back exactly when a bye says", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 60_000, maxMs: 60_000 } });
  await using _ = client;
  const byes: unknown[] = [];
  client.on("bye", (bye) => byes.push(bye));
  const first = await server.next();
  first.hi({ pos: "e.0" });
  const closedAt = performance.now();
  first.send({ t: "bye", code: 1012, why: "restart", retry_ms: 250 });
  first.close(1012, "other words");
  await watch.losses(1);
  assertEquals(watch.lost, [{ code: 1012, reason: "restart", opened: true, retryMs: 250 }]);
  assertEquals(byes, [{ t: "bye", code: 1012, why: "restart", retry_ms: 250 }]);
  assertEquals(client.state, "waiting");
  await server.next();
  const waitedMs = performance.now() - closedAt;
  assert(waitedMs >= 245, `It came back after ${waitedMs} ms`);
});

for (const retry_ms of [undefined, -1, "soon", null]) {
  Deno.test(`Client takes its own time when a bye says retry_ms ${retry_ms}`, async () => {
    await using server = new ScriptedServer();
    const { client, watch } = watchAlice(server.url);
    await using _ = client;
    const socket = await server.next();
    socket.send({ t: "bye", code: 1012, why: "restart", retry_ms });
    socket.close(1012);
    await server.next();
    assert(watch.lost[0]!.retryMs! <= QUICK.baseMs);
  });
}

Deno.test("Client does not come back at once when a bye says never", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url);
  const socket = await server.next();
  // As milliseconds of a timer this would overflow to none.
  socket.send({ t: "bye", code: 1012, why: "restart", retry_ms: 2 ** 40 });
  socket.close(1012);
  await watch.losses(1);
  assertEquals(watch.lost[0]!.retryMs, 3_600_000);
  await client.close();
  assertEquals(server.attempts, 1);
});

Deno.test("Client waits twice as long after each failure, up to a limit, and less by chance", async () => {
  await using server = new ScriptedServer();
  await withoutChance(async () => {
    server.refuse(...Array(6).fill(503));
    const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 2, maxMs: 20, steadyMs: 60_000 } });
    await using _ = client;
    (await server.next()).close(1012);
    await watch.losses(7);
    assertEquals(watch.lost.map(({ retryMs }) => retryMs), [2, 4, 8, 16, 20, 20, 20]);
  });

  server.refuse(...Array(20).fill(503));
  const { client, watch } = watchAlice(server.url, { backoff: { baseMs: 20, maxMs: 20 } });
  await using _ = client;
  await watch.losses(20);
  const waits = watch.lost.map(({ retryMs }) => retryMs!);
  assert(waits.every((wait) => wait >= 0 && wait < 20), String(waits));
  assert(
    Math.min(...waits) < 10 && Math.max(...waits) > 10,
    `Twenty waits on one side of the middle: ${waits}`,
  );
});

Deno.test("Client begins with the shortest wait again after a steady connection, and only then", async () => {
  await withoutChance(async () => {
    await using server = new ScriptedServer();
    server.refuse(503, 503);
    const STEADY_MS = 1_000; // the short one is closed in the same moment in which it opens
    const { client, watch } = watchAlice(server.url, {
      backoff: { baseMs: 2, maxMs: 1_000, steadyMs: STEADY_MS },
    });
    await using _ = client;
    const short = await server.next();
    short.hi();
    short.close(1012);
    await watch.losses(3);
    assertEquals(watch.lost.map(({ retryMs }) => retryMs), [2, 4, 8]);

    const steady = await server.next();
    steady.hi();
    await watch.state("open");
    const openedAt = Date.now();
    await until(() => Date.now() - openedAt > STEADY_MS, "the connection to be steady");
    steady.close(1012);
    await watch.losses(4);
    assertEquals(watch.lost[3]!.retryMs, 2);
  });
});

Deno.test("Client that knows a position resumes from it until the server gives another", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, { resume: "old.7" });
  assertEquals(client.position, "old.7");
  const first = await server.next();
  assertEquals(first.resume, "old.7");
  first.close(1012); // before it said anything
  const second = await server.next();
  assertEquals(second.resume, "old.7");
  second.hi({ pos: "old.7", resumed: true });
  second.message(8);
  second.close(1012);
  // The message was received, and nobody has taken it yet.
  const third = await server.next();
  assertEquals(third.resume, "old.8");
  assertEquals(client.position, "old.7");
});
