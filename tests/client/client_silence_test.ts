/** A server that says nothing any more, or never says anything: the client notices, and is not fooled by itself. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { type Ending, Session, type Socket } from "../../src/client/session.ts";
import { connectAlice, QUICK, watchAlice } from "../../testkit/client_watch.ts";
import { until } from "../../testkit/deadline.ts";
import { connectFake, FakeSocket } from "../../testkit/fake_socket.ts";
import { ScriptedServer } from "../../testkit/scripted_server.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

Deno.test("Client gives up a server that is silent for longer than its ping and the time-out", async () => {
  await using server = new ScriptedServer();
  const { client, watch } = watchAlice(server.url, { timeoutMs: 1_000 });
  await using _ = client;
  const first = await server.next();
  first.hi({ pos: "e.4", ping: 0.5 });
  await watch.state("open");
  // Many more than are needed, for longer than it bears silence: on a busy machine some come late.
  const openedAt = performance.now();
  let lastAt = openedAt;
  for (let signs = 0; lastAt < openedAt + 2_000; signs++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    lastAt = performance.now();
    first.send(signs % 2 === 0 ? { t: "p" } : { t: "m", ts: 1, data: 1 });
  }
  assertEquals([client.state, watch.lost.length], ["open", 0], "Signs of life keep it open");
  const second = await server.next();
  assert(performance.now() - lastAt >= 1_490, "It gave up too early");
  assertEquals(second.resume, "e.4");
  assertEquals(watch.lost[0]!.code, 1006);
  assertMatch(watch.lost[0]!.reason, /^The server was silent for \d+ s$/);
  assertEquals(await first.closed, 1000);
});

Deno.test("Client gives up a handshake that is not answered, and a server that does not say hi", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const mute: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of listener) mute.push(conn);
  })();
  {
    const client = connect(`ws://127.0.0.1:${listener.addr.port}`, {
      user: "alice",
      timeoutMs: 50,
      backoff: QUICK,
    });
    await using _ = client;
    await until(() => mute.length >= 3, "three attempts");
    assertEquals(client.state === "open", false);
  }
  listener.close();
  await accepting;
  for (const conn of mute) conn.close();

  await using server = new ScriptedServer();
  await using _ = connectAlice(server.url, { timeoutMs: 50 });
  await server.next();
  await server.next();
});

Deno.test("Client looks twice before it gives up a server when it was itself not running", async () => {
  const { client, watch, socket: nth } = connectFake({ timeoutMs: 600 });
  const socket = await nth(1);
  socket.frame({ t: "hi", ping: 0.1 });
  // As a busy program or a sleeping machine does: nothing runs, and the server's frames wait to be read.
  const until = Date.now() + 2_000; // a second more than the 700 ms of silence that it bears, and some
  while (Date.now() < until);
  setTimeout(() => socket.frame({ t: "p" }), 100);
  await new Promise((resolve) => setTimeout(resolve, 150));
  assertEquals([client.state, watch.lost.length], ["open", 0]);
  await watch.losses(1); // now that it runs, and hears nothing
  await client.close();
});

/** A session that bears 35 s of silence, on a clock that stands still. */
function openSession() {
  const ends: Ending[] = [];
  const socket = new FakeSocket();
  const host = { onFrame() {}, onError() {}, onEnd: (ending: Ending) => void ends.push(ending) };
  new Session(socket as Socket, host, { parse: JSON.parse, timeoutMs: 10_000 });
  socket.frame({ t: "hi", ping: 25 });
  return { socket, ends };
}

Deno.test("Client is not kept from noticing silence by a wall clock that is set back", () => {
  using clock = new TurnedClock();
  const { ends } = openSession();
  clock.pass(9_000);
  clock.setWallClock(-3_600_000);
  clock.pass(35_999);
  assertEquals(ends, []);
  clock.pass(1);
  assertEquals([ends.length, clock.timers], [1, 0]);
});

Deno.test("Client looks twice each time that its machine has slept, if it heard something since", () => {
  using clock = new TurnedClock();
  const { socket, ends } = openSession();
  // Until half a second after it has looked: the first time before it knows how often the server shows a sign of life.
  for (const ms of [10_500, 33_500, 33_500]) {
    clock.setWallClock(3_600_000);
    clock.pass(ms);
    assertEquals(ends, []);
    socket.frame({ t: "p" });
    clock.pass(2_000); // it looks again, and has heard something
  }
  clock.pass(40_000);
  assertEquals([ends.length, clock.timers], [1, 0]);
});
