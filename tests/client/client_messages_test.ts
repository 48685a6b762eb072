/**
 * What the client makes of frames: each message once and in order, as what it is, and gaps in their place. Against a
 * server that also plays what must not happen.
 */
import { assertEquals, assertMatch, assertStrictEquals } from "@std/assert";
import type { GapFrame } from "../../src/client/mod.ts";
import { connectAlice, flush, Inbox, take } from "../../testkit/client_watch.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";

Deno.test("Client gives every kind of message as what it is", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1, { ts: 1700000000000, data: { a: [1, null] } });
  socket.message(2, { r: 1, g: "team", data: "text" });
  socket.message(3, { enc: "base64", data: "AP8+Pw==" });
  socket.send({ t: "m", ts: 5, data: "foreign" });
  socket.send({ t: "m", ts: 5, enc: "base64", data: "" });
  await inbox.received(5);
  assertEquals(inbox.messages, [
    { data: { a: [1, null] }, id: "id1", ts: 1700000000000, seq: 1, replayed: false },
    { data: "text", id: "id2", ts: 1, seq: 2, group: "team", replayed: true },
    { data: Uint8Array.of(0, 255, 62, 63), id: "id3", ts: 1, seq: 3, replayed: false },
    { data: "foreign", id: undefined, ts: 5, seq: undefined, replayed: false },
    { data: new Uint8Array(), id: undefined, ts: 5, seq: undefined, replayed: false },
  ]);
  assertEquals(client.position, "e.3");
  assertEquals(inbox.errors, []);
});

Deno.test("Client reads frames with the parser it is given", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, {
    parse: (text) => JSON.parse(text, (key, value) => key === "big" ? BigInt(value) : value),
  });
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1, { data: { big: "12345678901234567890" } });
  await inbox.received(1);
  assertEquals(inbox.messages[0]!.data, { big: 12345678901234567890n });
});

Deno.test("Client reports frames it can't read, and goes on", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi({ pos: "not a position" });
  for (const broken of ["{", "null", "[]", '"m"', '{"t":1}', "{}", Uint8Array.of(1)]) socket.send(broken);
  socket.send({ t: "gap", from: 1, to: 1, count: 1, why: "trimmed", pos: "nowhere" });
  socket.send({ t: "re", id: "1", ok: true }); // known, and nothing to us
  socket.send({ t: "new" }); // what a newer server may send
  socket.message(1);
  await inbox.received(1);
  assertEquals(inbox.errors.length, 9);
  assertEquals(inbox.errors[0], 'The server stands at "not a position", which is no position');
  for (const error of inbox.errors.slice(1, 8)) assertMatch(error, /^Can't read a frame from the server: "/);
  assertEquals(inbox.errors[8], 'A gap ends at "nowhere", which is no position');
  assertEquals([inbox.list, client.state, client.position], [[1], "open", undefined]);
});

Deno.test("Client without a listener for errors tells the console", async () => {
  await using server = new ScriptedServer();
  const { warn } = console;
  const lines: unknown[][] = [];
  console.warn = (...line) => lines.push(line);
  try {
    await using client = connectAlice(server.url);
    const socket = await server.next();
    socket.hi({ pos: "e.0" });
    socket.send("{");
    socket.message(1);
    await take(client[Symbol.asyncIterator]());
  } finally {
    console.warn = warn;
  }
  assertEquals(lines.length, 1);
  assertMatch(String(lines[0]), /userwire:.*Can't read a frame/);
});

// ---------------------------------------------------------------------------------------------------------
// Once, in order, and what is missing

Deno.test("Client drops what comes twice, on one connection and on the next", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  const first = await server.next();
  first.hi({ pos: "e.0" });
  for (const seq of [1, 1, 2, 1, 3]) first.message(seq);
  await inbox.received(3);
  first.close(1012);
  const second = await server.next();
  assertEquals(second.resume, "e.3");
  second.hi({ pos: "e.3", resumed: true });
  for (const seq of [2, 3, 4, 4]) second.message(seq, { r: 1 });
  second.send({ t: "m", ts: 1, data: "no number" });
  second.send({ t: "m", ts: 1, data: "no number" });
  await inbox.received(6);
  assertEquals(inbox.list, [1, 2, 3, 4, "no number", "no number"]);
});

Deno.test("Client drops what comes twice while the first still waits for the application", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const first = await server.next();
  first.hi({ pos: "e.0" });
  first.message(1);
  first.message(2);
  first.close(1012);
  const second = await server.next();
  assertEquals([client.position, second.resume], ["e.0", "e.2"]);
  second.hi({ pos: "e.2", resumed: true });
  for (const seq of [1, 2, 3]) second.message(seq);
  await flush(client, second);
  assertEquals(client.position, "e.0", "It has three messages, and the application none");
  const inbox = new Inbox(client);
  assertEquals(inbox.list, [1, 2, 3]);
  assertEquals(client.position, "e.3");
});

Deno.test("Client reports gaps in their place, and goes on behind them", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url, { resume: "e.2" });
  const inbox = new Inbox(client);
  const gaps: GapFrame[] = [];
  const positions: unknown[] = [];
  client.on("gap", (gap) => {
    gaps.push(gap);
    positions.push(client.position);
  });
  const first = await server.next();
  first.hi({ pos: "e.2", resumed: true });
  const trimmed = { t: "gap", from: 3, to: 5, count: 3, why: "trimmed", pos: "e.5" };
  first.send(trimmed);
  first.send(trimmed); // is no news
  first.message(4); // was announced as missing, so it is
  first.message(6);
  await inbox.received(2);
  first.close(1012);

  const second = await server.next();
  assertEquals(second.resume, "e.6");
  second.hi({ pos: "f.0" });
  const lost = { t: "gap", from: 7, to: null, count: null, why: "epoch", pos: "f.0" };
  second.send(lost);
  second.message(1);
  // The same epoch set back, as by a restored backup.
  const back = { t: "gap", from: 2, to: null, count: null, why: "epoch", pos: "f.0" };
  second.send(back);
  second.message(1);
  await inbox.received(6);
  assertEquals(inbox.list, ["trimmed 3-5", 6, "epoch 7-null", 1, "epoch 2-null", 1]);
  assertEquals(gaps, [trimmed, lost, back] as GapFrame[]);
  assertEquals(positions, ["e.5", "f.0", "f.0"]);
  second.close(1012);
  assertEquals((await server.next()).resume, "f.1");
});

Deno.test("Client reports a message that comes too early, and goes on", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  socket.message(1);
  socket.message(4);
  socket.message(5);
  await inbox.received(3);
  assertEquals(inbox.list, [1, 4, 5]);
  assertEquals(inbox.errors, ["Message 4 came after 1, and no gap was announced"]);
  assertEquals(client.position, "e.5");
});

Deno.test("Client counts nothing while the service keeps no history", async () => {
  await using server = new ScriptedServer();
  await using client = connectAlice(server.url);
  const inbox = new Inbox(client);
  const first = await server.next();
  first.hi();
  first.send({ t: "m", id: "a", ts: 1, data: "a" });
  first.send({ t: "m", id: "a", ts: 1, data: "a" });
  await inbox.received(2);
  assertStrictEquals(client.position, undefined);
  first.close(1012);
  assertStrictEquals((await server.next()).resume, null);
});
