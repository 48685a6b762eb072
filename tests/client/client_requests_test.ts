/** Requests of the client library, against a server that does what the test says. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import type { Client, RequestOptions } from "../../src/client/mod.ts";
import { RequestError } from "../../src/client/mod.ts";
import { connectAlice } from "../../testkit/client_watch.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { ScriptedServer, type ScriptedSocket } from "../../testkit/scripted_server.ts";

async function open(server: ScriptedServer): Promise<{ client: Client; socket: ScriptedSocket }> {
  const client = connectAlice(server.url);
  const socket = await server.next();
  socket.hi({ req: 1 });
  // What is asked from now on is sent in that moment, however short its time is.
  await until(() => client.state === "open", "the client to be open");
  return { client, socket };
}

/** What became of it: the answer as JSON, or the code and outcome of the error. */
async function told(request: Promise<unknown>): Promise<string> {
  return await withDeadline(
    request.then(
      (data) => JSON.stringify(data) ?? "nothing",
      (error: RequestError) => `${error.code} ${error.outcome}`,
    ),
    20_000,
    "an answer",
  );
}

function ids(socket: ScriptedSocket): string[] {
  return socket.frames.map(({ id }) => String(id));
}

Deno.test("Client hands each answer to who asked, in whatever order they come, and ignores the others", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await open(server);
  await using _ = client;
  const answers = ["a", "b", "c"].map((op) => told(client.request(op, { op })));
  await socket.received(3);
  assertEquals(socket.frames.map(({ t, op, data }) => ({ t, op, data })), [
    { t: "req", op: "a", data: { op: "a" } },
    { t: "req", op: "b", data: { op: "b" } },
    { t: "req", op: "c", data: { op: "c" } },
  ]);
  const [a, b, c] = ids(socket);
  assertEquals(new Set(ids(socket)).size, 3);
  for (const id of ids(socket)) assertMatch(id, /^[\w-]{1,64}$/);
  socket.send({ t: "re", id: "auth", ok: true });
  socket.send({ t: "re", id: c!, ok: true, data: 3 });
  socket.send({ t: "re", id: c!, ok: false, code: "twice", err: "Twice" });
  socket.send({ t: "re", id: b!, ok: false, code: "no", err: "No", retry_ms: 9, outcome: "unknown" });
  socket.send({ t: "re", id: a!, ok: true });
  assertEquals(await Promise.all(answers), ["nothing", "no unknown", "3"]);
});

Deno.test("Client holds sixteen unanswered, makes the others wait in order, and sends no more in a second than it may", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await open(server);
  await using _ = client;
  const COUNT = 70;
  const startMs = performance.now();
  const answers = Array.from({ length: COUNT }, (_, i) => client.request("op", i));
  await socket.received(16);
  let isAsked = false;
  const asked = client.request("last").then(() => isAsked = true);
  for (let i = 0; i < COUNT + 1; i++) {
    await socket.received(i + 1);
    assert(socket.frames.length - i <= 16, `${socket.frames.length - i} are unanswered`);
    socket.send({ t: "re", id: ids(socket)[i]!, ok: true, data: i });
  }
  assertEquals(await Promise.all(answers), Array.from({ length: COUNT }, (_, i) => i));
  await asked;
  assertEquals([isAsked, socket.frames.at(-1)!.op], [true, "last"]);
  // One that was late may come close to the next: what counts is how many there are in all.
  const seconds = (performance.now() - startMs) / 1_000;
  assert(COUNT <= 17 + seconds * 40, `${COUNT} in ${seconds} s`);
});

Deno.test("Client waits for a connection, repeats over the next one what may be repeated, and nothing else", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const early = told(client.request("early"));
  const first = await server.next();
  const kept = told(client.request("kept", 1, { retry: true }));
  const late = told(client.request("late", undefined, { timeoutMs: 60_000 }));
  first.hi({ req: 1 });
  await first.received(3);
  first.send({ t: "re", id: ids(first)[0]!, ok: true, data: "e" });
  assertEquals(await early, '"e"');
  first.close(1012);
  assertEquals(await late, "lost unknown");
  const second = await server.next();
  second.hi({ req: 1 });
  await second.received(1);
  assertEquals([second.frames[0]!.op, second.frames[0]!.id], ["kept", ids(first)[1]]);
  // An answer over a connection that is gone would be of another try.
  for (const code of ["busy", "unavailable", "timeout"]) {
    const before = second.frames.length;
    second.send({ t: "re", id: ids(second)[0]!, ok: false, code, err: "Not now", retry_ms: 1 });
    await second.received(before + 1);
  }
  second.send({ t: "re", id: ids(second)[0]!, ok: false, code: "no", err: "No" });
  assertEquals(await kept, "no refused");
  assertEquals(new Set(ids(second)).size, 1);
});

Deno.test("Client's time is up whether it was sent or not, and says which; it tells the service how long it waits", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await open(server);
  await using _ = client;
  assertEquals(await told(client.request("op", 1, { timeoutMs: 20 })), "timeout unknown");
  await socket.received(1);
  const [{ timeout_ms }] = socket.frames as [{ timeout_ms: number }];
  assert(timeout_ms > 0 && timeout_ms <= 20);
  // It still has its place in the service.
  const others = Array.from({ length: 16 }, () => told(client.request("op", 2, { timeoutMs: 300 })));
  await socket.received(16);
  assertEquals(new Set(await Promise.all(others)), new Set(["timeout unknown", "timeout refused"]));
  assertEquals(socket.frames.length, 16);
  const waiting = told(client.request("op", 3, { timeoutMs: Infinity }));
  await client.close();
  assertEquals(await waiting, "closed refused");
});

Deno.test("Client refuses what can't be asked, and what this service does not take", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const waiting = told(client.request("op"));
  const bad: [string, unknown, RequestOptions?][] = [
    ["", 1],
    ["x".repeat(65), 1],
    ["op", () => {}],
    ["op", 1n],
    ["op", 1, { timeoutMs: 0 }],
    ["op", 1, { timeoutMs: NaN }],
  ];
  for (const [op, data, options] of bad) {
    await assertRejects(() => client.request(op, data, options), TypeError);
  }
  const many = Array.from({ length: 1_000 }, () => told(client.request("op")));
  assertEquals(await many.at(-1), "busy refused");
  const socket = await server.next();
  socket.hi();
  assertEquals(await waiting, "unsupported refused");
  assertEquals(new Set(await Promise.all(many)), new Set(["unsupported refused", "busy refused"]));
  assertEquals(await told(client.request("op")), "unsupported refused");
  const error = await assertRejects(() => client.request("op"), RequestError);
  assertEquals([error.name, error.retryMs], ["RequestError", undefined]);
  assertEquals(socket.frames, []);
});
