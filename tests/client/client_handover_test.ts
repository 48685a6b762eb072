/** The ways to the application, loops and listeners, and the bound on what waits for it. */
import { assert, assertEquals } from "@std/assert";
import { connectAlice, flush, Inbox, take } from "../../testkit/client_watch.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

Deno.test("Client keeps messages and gaps until somebody asks for messages", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const gaps: unknown[] = [];
  client.on("gap", (gap) => gaps.push(gap.to));
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.send({ t: "gap", from: 1, to: 2, count: 2, why: "trimmed", pos: "e.2" });
  socket.message(3);
  socket.send({ t: "gap", from: 4, to: 4, count: 1, why: "trimmed", pos: "e.4" });
  socket.message(5);
  await flush(client, socket);
  assertEquals([client.position, gaps], ["e.0", []]);

  const iterator = client[Symbol.asyncIterator]();
  assertEquals((await take(iterator))?.seq, 3);
  assertEquals(
    [client.position, gaps],
    ["e.4", [2, 4]],
    "A gap is told when everything before it was handed over",
  );
  assertEquals((await take(iterator))?.seq, 5);
  assertEquals(client.position, "e.5");
});

Deno.test("Client's loop gets every message in order, and ends when the client is closed", async () => {
  await using server = new ScriptedServer();
  const client = connectAlice(server.url);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  for (let seq = 1; seq <= 5; seq++) socket.message(seq);
  await flush(client, socket);
  const seqs: unknown[] = [];
  const loop = (async () => {
    for await (const { seq } of client) {
      seqs.push(seq);
      assertEquals(client.position, `e.${seq}`);
      if (seq === 3) await client.close();
    }
  })();
  await withDeadline(loop, 20_000, "the loop to end");
  assertEquals(seqs, [1, 2, 3]);
  assertEquals(client.position, "e.3", "What nobody took is left for whoever resumes");
  for await (const _ of client) assert(false, "A closed client has no messages");
});

Deno.test("Client's loop gets what came before the server closed for good", async () => {
  await using server = new ScriptedServer();
  const client = connectAlice(server.url);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1);
  socket.message(2);
  socket.close(4403, "kicked");
  await client.closed;
  const seqs: unknown[] = [];
  for await (const { seq } of client) seqs.push(seq);
  assertEquals(seqs, [1, 2]);
});

Deno.test("Client goes on when a loop is left, with the next loop or with a listener", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  for (let seq = 1; seq <= 5; seq++) socket.message(seq);
  await flush(client, socket);
  for await (const { seq } of client) {
    assertEquals(seq, 1);
    break;
  }
  for await (const { seq } of client) {
    assertEquals(seq, 2);
    break;
  }
  const iterator = client[Symbol.asyncIterator]();
  await take(iterator);
  const inbox = new Inbox(client);
  assertEquals(inbox.list, [], "A loop sets the pace");
  const pending = iterator.next();
  assertEquals((await pending).value?.seq, 4);
  assertEquals(inbox.list, [4], "A listener is told of what a loop takes");
  const other = client[Symbol.asyncIterator]();
  await iterator.return?.();
  assertEquals(await iterator.next(), { value: undefined, done: true });
  assertEquals(inbox.list, [4], "There is another loop");
  await other.return?.();
  assertEquals(inbox.list, [4, 5], "Without a loop, listeners are told at once");
});

Deno.test("Client's loop can be left while it waits for a message", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const [left, kept] = [client[Symbol.asyncIterator](), client[Symbol.asyncIterator]()];
  const leftPull = left.next();
  const keptPull = kept.next();
  await left.return?.();
  assertEquals(await leftPull, { value: undefined, done: true });
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1);
  assertEquals((await withDeadline(keptPull, 20_000, "the message")).value?.seq, 1);
});

Deno.test("Client shares messages among loops, each once", async () => {
  await using server = new ScriptedServer();
  const client = connectAlice(server.url);
  const seqs: unknown[] = [];
  const loops = [1, 2, 3].map(async () => {
    for await (const { seq } of client) seqs.push(seq);
  });
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  for (let seq = 1; seq <= 9; seq++) socket.message(seq);
  await until(() => seqs.length === 9, "nine messages");
  await client.close();
  await Promise.all(loops);
  assertEquals(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

Deno.test("Client tells listeners in order, until they are taken off", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const calls: string[] = [];
  const off = client.on("message", ({ seq }) => calls.push(`a${seq}`));
  const inbox = new Inbox(client);
  client.on("message", ({ seq }) => {
    calls.push(`b${seq} ${client.position}`);
    off();
  });
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1);
  socket.message(2);
  await inbox.received(2);
  assertEquals(calls, ["a1", "b1 e.1", "b2 e.2"]);
});

Deno.test("Client tells every listener of one message before the next, also when one asks for more meanwhile", async () => {
  for (const way of ["listens", "takes", "leaves"] as const) {
    await using server = new ScriptedServer();
    await using client = connectAlice(server.url);
    // As long as there is a loop that takes nothing, everything waits.
    const iterator = client[Symbol.asyncIterator]();
    const calls: string[] = [];
    client.on("message", ({ seq }) => {
      calls.push(`a${seq}`);
      if (seq !== 1) return;
      if (way === "listens") client.on("message", ({ seq }) => calls.push(`c${seq}`));
      else if (way === "takes") void iterator.next();
      else void iterator.return?.();
    });
    client.on("message", ({ seq }) => calls.push(`b${seq}`));
    const socket = await server.next();
    socket.hi({ pos: "e.0" });
    socket.message(1);
    socket.message(2);
    await flush(client, socket);
    assertEquals(calls, []);
    if (way === "listens") await iterator.return?.();
    else await take(iterator);
    assertEquals(calls, ["a1", "b1", "a2", "b2", ...(way === "listens" ? ["c2"] : [])], way);
  }
});

Deno.test("Client lets no listener's error disturb the others", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const uncaught: string[] = [];
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    uncaught.push(event.error.message);
  };
  addEventListener("error", onError);
  try {
    client.on("message", ({ seq }) => {
      throw new Error(`no use for ${seq}`);
    });
    const inbox = new Inbox(client);
    const socket = await server.next();
    socket.hi({ pos: "e.0" });
    socket.message(1);
    socket.message(2);
    await inbox.received(2);
    await until(() => uncaught.length === 2, "two errors");
    assertEquals(uncaught, ["no use for 1", "no use for 2"]);
    assertEquals(client.position, "e.2");
  } finally {
    removeEventListener("error", onError);
  }
});

for (const [what, buffer] of [["messages", { messages: 10 }], ["chars", { chars: 900 }]] as const) {
  Deno.test(`Client disconnects when too many ${what} wait, and goes on when half of them are gone`, async () => {
    await using server = new ScriptedServer();
    await using client = connectAlice(server.url, { buffer });
    const first = await server.next();
    first.hi({ pos: "e.0" });
    const text = "x".repeat(30);
    const sizeOf = (seq: number) => JSON.stringify({ t: "m", seq, id: `id${seq}`, ts: 1, data: text }).length;
    for (let seq = 1; seq <= 40; seq++) first.message(seq, { data: text });
    assertEquals(await first.closed, 1000);
    assertEquals([client.state, server.attempts], ["waiting", 1]);
    await client[Symbol.asyncIterator]().return?.();

    const seqs: unknown[] = [];
    const iterator = client[Symbol.asyncIterator]();
    while (client.state === "waiting") seqs.push((await take(iterator))?.seq);
    const second = await server.next();
    const kept = Number(second.resume!.split(".")[1]);
    if (what === "messages") {
      assertEquals([kept, seqs.length], [11, 6]);
    } else {
      const taken = seqs.length;
      const total = (from: number, to: number) => {
        let size = 0;
        for (let seq = from; seq <= to; seq++) size += sizeOf(seq);
        return size;
      };
      assert(total(1, kept) > 900 && total(1, kept - 1) <= 900);
      assert(total(taken + 1, kept) <= 450 && total(taken, kept) > 450);
    }
    second.hi({ pos: second.resume, resumed: true });
    for (let seq = kept + 1; seq <= kept + 3; seq++) second.message(seq);
    while (seqs.length < kept + 3) seqs.push((await take(iterator))?.seq);
    assertEquals(seqs, Array.from({ length: kept + 3 }, (_, index) => index + 1));
  });
}

Deno.test("Client that took too much waits for the network and the application, both", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, { buffer: { messages: 1 } });
  const first = await server.next();
  first.hi({ pos: "e.0" });
  first.message(1);
  first.message(2);
  await first.closed;
  assertEquals(client.state, "waiting");
  dispatchEvent(new Event("offline"));
  assertEquals(client.state, "offline");
  dispatchEvent(new Event("online"));
  assertEquals(client.state, "waiting");
  dispatchEvent(new Event("offline"));
  const inbox = new Inbox(client);
  assertEquals([inbox.list, client.state, server.attempts], [[1, 2], "offline", 1]);
  // Nobody says that it is online, and it tries all the same after its longest wait.
  assertEquals((await server.next()).resume, "e.2");
});
