/** When the client acknowledges, and that it never does so too often. */
import { assert, assertEquals } from "@std/assert";
import { Acks } from "../../src/client/acks.ts";
import type { Client } from "../../src/client/mod.ts";
import { connectAlice, flush, Inbox, take } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { connectFake } from "../../testkit/fake_socket.ts";
import { HeldTimers } from "../../testkit/held_timers.ts";
import { ScriptedServer, type ScriptedSocket } from "../../testkit/scripted_server.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

/** How long what nobody waits for is held back. */
const DELAY_MS = 1_000;

async function openForAcks(server: ScriptedServer): Promise<{ client: Client; socket: ScriptedSocket }> {
  const client = connectAlice(server.url);
  const socket = await server.next();
  socket.hi({ pos: "e.0" });
  return { client, socket };
}

Deno.test("Client acknowledges at once what a sender waits for, when the application has it", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  await using _ = client;
  socket.message(1);
  socket.message(2, { ack: 1 });
  socket.message(2, { ack: 1 });
  await flush(client, socket);
  const iterator = client[Symbol.asyncIterator]();
  await take(iterator);
  assertEquals(socket.frames, [], "Nobody has taken the second one");
  {
    using _held = new HeldTimers(DELAY_MS);
    await take(iterator);
    await socket.received(1);
  }
  assertEquals(socket.frames, [{ t: "ack", seq: 2 }]);
  // The receipt was lost on its way; the message is not handed over again.
  socket.message(2, { ack: 1 });
  await socket.received(2);
  assertEquals(socket.frames[1], { t: "ack", seq: 2 });
});

Deno.test("Client acknowledges after a second, or at once after 32 messages", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  await using _ = client;
  const inbox = new Inbox(client);
  {
    using held = new HeldTimers(DELAY_MS);
    for (let seq = 1; seq <= 31; seq++) socket.message(seq);
    await inbox.received(31);
    assertEquals([socket.frames, held.count], [[], 1], "Thirty-one messages have time");
    held.run();
    await socket.received(1);
    assertEquals(socket.frames, [{ t: "ack", seq: 31 }]);

    for (let seq = 32; seq <= 63; seq++) socket.message(seq);
    await socket.received(2);
    assertEquals(socket.frames[1], { t: "ack", seq: 63 }, "Thirty-two need none");
  }
});

Deno.test("Client acknowledges at most twenty times a second, whatever is asked of it", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  await using _ = client;
  const inbox = new Inbox(client);
  const COUNT = 500;
  const startedAt = performance.now();
  for (let seq = 1; seq <= COUNT; seq++) {
    socket.message(seq, { ack: 1 });
    if (seq % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 4));
  }
  await inbox.received(COUNT);
  await until(() => socket.frames.at(-1)?.seq === COUNT, "the last acknowledgement");
  // From before the first one was asked for, until after the last one came: however late each of them was.
  const seconds = (performance.now() - startedAt) / 1_000;
  assert(socket.frames.length <= 2 + seconds * 20, `${socket.frames.length} frames in ${seconds} s`);
  assert(socket.frames.length >= 2);
});

Deno.test("Client acknowledges what it holds back before it closes, and nothing on the next connection", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  const inbox = new Inbox(client);
  socket.message(1);
  await inbox.received(1);
  socket.close(1012);
  const second = await server.next();
  second.hi({ pos: "e.1", resumed: true });
  second.message(2);
  await inbox.received(2);
  await client.close();
  await second.closed;
  assertEquals(second.frames, [{ t: "ack", seq: 2 }]);
});

Deno.test("Client acknowledges no number of an epoch that has ended", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  socket.send({ t: "gap", from: 1, to: 499, count: 499, why: "trimmed", pos: "e.499" });
  socket.message(500, { ack: 1 });
  await flush(client, socket);
  socket.close(1012);
  const second = await server.next();
  second.hi({ pos: "f.0" });
  second.send({ t: "gap", from: 501, to: null, count: null, why: "epoch", pos: "f.0" });
  second.message(1, { ack: 1 });
  second.message(2);
  await flush(client, second);
  const iterator = client[Symbol.asyncIterator]();
  using _held = new HeldTimers(DELAY_MS);
  assertEquals((await take(iterator))?.seq, 500);
  assertEquals((await take(iterator))?.seq, 1);
  await second.received(1);
  assertEquals((await take(iterator))?.seq, 2);
  // Now with a number that is held back when the epoch ends.
  second.send({ t: "gap", from: 3, to: null, count: null, why: "epoch", pos: "g.0" });
  await flush(client, second);
  await client.close();
  await second.closed;
  assertEquals(second.frames, [{ t: "ack", seq: 1 }]);
});

Deno.test("Client answers no sender of a new epoch with a number of the old one", async () => {
  await using server = new ScriptedServer();
  const { client, socket } = await openForAcks(server);
  await using _ = client;
  socket.send({ t: "gap", from: 1, to: 499, count: 499, why: "trimmed", pos: "e.499" });
  socket.message(500);
  socket.message(501);
  socket.send({ t: "gap", from: 502, to: null, count: null, why: "epoch", pos: "f.0" });
  socket.message(1, { ack: 1 });
  const iterator = client[Symbol.asyncIterator]();
  using _held = new HeldTimers(DELAY_MS);
  assertEquals((await take(iterator))?.seq, 500);
  // The application has a greater number, and not this message.
  socket.message(1, { ack: 1 });
  await flush(client, socket);
  assertEquals((await take(iterator))?.seq, 501);
  assertEquals((await take(iterator))?.seq, 1);
  await socket.received(1);
  assertEquals(socket.frames, [{ t: "ack", seq: 1 }]);
});

Deno.test("Client goes on when the application takes what a sender waits for as the connection ends", async () => {
  const { client, watch, socket: nth } = connectFake();
  const taken: unknown[] = [];
  client.on("lost", () => client.on("message", ({ seq }) => taken.push(seq)));
  const first = await nth(1);
  first.frame({ t: "hi", ping: 25, pos: "e.0" });
  first.frame({ t: "m", seq: 1, id: "1", ts: 1, data: 1, ack: 1 });
  first.frame({ t: "m", seq: 2, id: "2", ts: 1, data: 2, ack: 1 });
  first.onclose!({ code: 1012, reason: "" });
  assertEquals(taken, [1, 2]);
  const second = await nth(2);
  second.frame({ t: "hi", ping: 25, pos: "e.2", resumed: true });
  second.frame({ t: "m", seq: 3, id: "3", ts: 1, data: 3 });
  assertEquals([taken, client.position, watch.errors], [[1, 2, 3], "e.3", []]);
  await client.close();
});

Deno.test("Client puts off no acknowledgement, however many messages come meanwhile", () => {
  using clock = new TurnedClock();
  const sent: number[] = [];
  const acks = new Acks((seq) => sent.push(seq));
  let seq = 0;
  /** One message each ten milliseconds, whose sender does not wait. */
  const stream = (ms: number) => {
    for (let passed = 0; passed < ms; passed += 10) {
      acks.handed(++seq, { urgent: false });
      clock.pass(10);
    }
  };
  acks.handed(++seq, { urgent: true });
  acks.handed(++seq, { urgent: true });
  assertEquals(sent, [1], "The second one comes too soon after the first");
  stream(40);
  assertEquals(sent, [1]);
  stream(20);
  assertEquals(sent, [1, 7], "Its sender waits no longer than that");
  // From the last message on which nothing was held back, not from the last one.
  acks.handed(++seq, { urgent: false });
  clock.pass(500);
  acks.handed(++seq, { urgent: false });
  clock.pass(400);
  assertEquals(sent, [1, 7]);
  clock.pass(100);
  assertEquals(sent, [1, 7, 10]);
  assertEquals(clock.timers, 0);
});

Deno.test("Client brings an acknowledgement forward when a sender waits, and sends it once", () => {
  using clock = new TurnedClock();
  const sent: number[] = [];
  const acks = new Acks((seq) => sent.push(seq));
  acks.handed(1, { urgent: false });
  clock.pass(100);
  acks.handed(2, { urgent: true });
  assertEquals([sent, clock.timers], [[2], 0]);
  acks.handed(3, { urgent: false });
  acks.handed(4, { urgent: true });
  assertEquals([sent, clock.timers], [[2], 1]);
  clock.pass(50);
  assertEquals([sent, clock.timers], [[2, 4], 0]);
  acks.flush();
  clock.pass(10_000);
  assertEquals(sent, [2, 4]);
});

Deno.test("Client forgets with a connection what it held back, and counts anew", () => {
  using clock = new TurnedClock();
  const sent: number[] = [];
  const acks = new Acks((seq) => sent.push(seq));
  const hand = (first: number, last: number) => {
    for (let seq = first; seq <= last; seq++) acks.handed(seq, { urgent: false });
  };
  hand(1, 31);
  acks.reset();
  assertEquals(clock.timers, 0);
  clock.pass(10_000);
  hand(32, 62);
  assertEquals(sent, [], "Thirty-one on each connection");
  clock.pass(1_000);
  assertEquals(sent, [62]);
});
