/** What a client that waits makes of a wall clock that is set otherwise, and of a machine that has slept. */
import { assertEquals } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { FakeDocument } from "../../testkit/fake_document.ts";
import { FakeSocket } from "../../testkit/fake_socket.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

/** A client that was sent away for a minute by its server, on a clock that stands still. */
async function sentAway() {
  const sockets: FakeSocket[] = [];
  class Socket extends FakeSocket {
    constructor() {
      super();
      sockets.push(this);
    }
  }
  const client = connect("ws://host", { user: "alice", WebSocket: Socket as never });
  // No timer is due meanwhile, and nothing is read: turns are all that passes until it has a socket.
  const hasSockets = async (count: number) => {
    for (let turns = 0; sockets.length < count && turns < 100; turns++) await null;
    assertEquals(sockets.length, count);
  };
  await hasSockets(1);
  sockets[0]!.frame({ t: "hi", ping: 25 });
  sockets[0]!.frame({ t: "bye", code: 1012, why: "restart", retry_ms: MINUTE_MS });
  sockets[0]!.onclose!({ code: 1012, reason: "restart" });
  assertEquals(client.state, "waiting");
  return { client, hasSockets };
}

Deno.test("Client that waits is back in time, however the wall clock is set meanwhile", async (t) => {
  for (const byMs of [-HOUR_MS, HOUR_MS]) {
    await t.step(byMs < 0 ? "back" : "forward", async () => {
      using clock = new TurnedClock();
      const { client, hasSockets } = await sentAway();
      clock.pass(MINUTE_MS / 2);
      clock.setWallClock(byMs);
      clock.pass(MINUTE_MS / 2 - 1);
      await hasSockets(1);
      clock.pass(1);
      await hasSockets(2);
      void client.close();
      clock.pass(MINUTE_MS);
      assertEquals(clock.timers, 0);
    });
  }
});

Deno.test("Client whose clock was set back waits no longer than it was told, when its page is seen", async () => {
  using document = new FakeDocument();
  using clock = new TurnedClock();
  const { client, hasSockets } = await sentAway();
  clock.setWallClock(-HOUR_MS);
  document.turn("visible");
  clock.pass(MINUTE_MS - 1);
  await hasSockets(1);
  clock.pass(1);
  await hasSockets(2);
  void client.close();
});

Deno.test("Client whose machine has slept connects when its page is seen, though its timer has yet to run", async () => {
  using document = new FakeDocument();
  using clock = new TurnedClock();
  const { client, hasSockets } = await sentAway();
  clock.setWallClock(HOUR_MS); // timers stand still while a machine sleeps, and the wall clock does not
  await hasSockets(1);
  document.turn("visible");
  clock.pass(0);
  await hasSockets(2);
  void client.close();
});
