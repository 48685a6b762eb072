/**
 * Clients that reset their connection in the middle of the handshake: what they cost, and that it is counted. Against
 * processes of their own, because Deno never lets go of what is lost.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Turn, Turnstile } from "../../src/http/turnstile.ts";
import { CLOSED, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

const HANDSHAKES = 100;
const MAX_LOST = 5;
/** A busy machine lets more slip through than usual, but not every time. */
const TRIES = 6;

/** The moments at which clients reset, in milliseconds after the last byte of the handshake. */
const MOMENTS: Readonly<Record<string, () => number>> = {
  "at once": () => 0,
  "after half a millisecond": () => 0.5,
  "at any moment": () => Math.random() * 5,
};

async function lostBy(
  moment: () => number,
  env: Readonly<Record<string, string>>,
  headers: Record<string, string>,
): Promise<number> {
  await using service = await ProcessService.start({ ...env, LOG_LEVEL: "info" });
  const url = service.socketUrl(env === CLOSED ? undefined : "mallory");
  // What the process opens once, it has now.
  await (await RawSocket.open(url, { headers })).closeAbruptly();
  const before = await service.openFiles();
  for (let i = 0; i < HANDSHAKES; i++) {
    const socket = await RawSocket.dial(url);
    socket.sendHandshake({ headers });
    const endMs = performance.now() + moment();
    while (performance.now() < endMs); // timers are not that exact
    await socket.reset();
  }
  // Those that wait are done when a later one is served.
  let left = Infinity;
  for (let calm = 0; calm < 20; calm++) {
    await (await RawSocket.open(url, { headers })).closeAbruptly();
    left = Math.min(left, await service.openFiles() - before);
  }
  return left;
}

for (const [name, moment] of Object.entries(MOMENTS)) {
  Deno.test({
    name: `Of a hundred handshakes that are reset no more than five leave a descriptor behind: ${name}`,
    ignore: Deno.build.os !== "linux", // which says what a process has open
    async fn(t) {
      for (const mode of ["open", "closed"]) {
        await t.step(`in ${mode} mode`, async () => {
          const headers: Record<string, string> = mode === "open"
            ? {}
            : { "Sec-WebSocket-Protocol": protocolsFor(await tokenFor("mallory")).join(", ") };
          const found: number[] = [];
          do found.push(await lostBy(moment, mode === "open" ? {} : CLOSED, headers)); while (
            found.at(-1)! > MAX_LOST && found.length < TRIES
          );
          assert(found.at(-1)! <= MAX_LOST, `${found} were lost`);
        });
      }
    },
  });
}

/** A handshake at the turnstile, played. */
class Client {
  readonly #left = new AbortController();
  turn: Turn | undefined;

  async come(turnstile: Turnstile, place: string): Promise<this> {
    this.turn = await turnstile.pass(place, this.#left.signal);
    return this;
  }

  open(): void {
    this.turn!.opened();
  }

  leave(): void {
    this.#left.abort();
    this.turn?.lost();
  }
}

Deno.test("A lost descriptor counts against its address, and a handshake that opened is lost no more", async () => {
  const lost: string[] = [];
  const turnstile = new Turnstile((place) => lost.push(place));
  const one = await new Client().come(turnstile, "1.1.1.1");
  one.open();
  one.leave();
  assertEquals(lost, []);
  (await new Client().come(turnstile, "1.1.1.1")).leave();
  assertEquals(lost, ["1.1.1.1"]);
});

Deno.test("Few handshakes of an address are answered before one is open; those of others do not wait for them", async () => {
  const turnstile = new Turnstile(() => {});
  const first = [
    await new Client().come(turnstile, "1.1.1.1"),
    await new Client().come(turnstile, "1.1.1.1"),
  ];
  const third = new Client();
  const coming = third.come(turnstile, "1.1.1.1");
  await (await new Client().come(turnstile, "2.2.2.2")).open();
  assertEquals(third.turn, undefined);
  first[0]!.open();
  await coming;
  assert(third.turn);
});

Deno.test("A client that leaves while it waits for its turn gives it to the next one", async () => {
  const turnstile = new Turnstile(() => {});
  const first = [
    await new Client().come(turnstile, "1.1.1.1"),
    await new Client().come(turnstile, "1.1.1.1"),
  ];
  const [third, fourth] = [new Client(), new Client()];
  const leaving = third.come(turnstile, "1.1.1.1");
  const coming = fourth.come(turnstile, "1.1.1.1");
  third.leave();
  first[0]!.open();
  await assertRejects(() => leaving);
  await coming;
  assert(fourth.turn);
});

Deno.test("A turn goes to who has waited longest, and nobody comes in between", async () => {
  const turnstile = new Turnstile(() => {});
  const first = [
    await new Client().come(turnstile, "1.1.1.1"),
    await new Client().come(turnstile, "1.1.1.1"),
  ];
  const served: number[] = [];
  const come = (n: number) =>
    new Client().come(turnstile, "1.1.1.1").then((client) => (served.push(n), client));
  const third = come(3);
  first[0]!.open();
  const fourth = come(4);
  first[1]!.open();
  const fifth = come(5);
  (await third).open();
  (await fourth).open();
  (await fifth).open();
  assertEquals(served, [3, 4, 5]);
});

Deno.test("A handshake that nobody waits for any more stands in nobody's way", async () => {
  const turnstile = new Turnstile(() => {});
  for (let i = 0; i < 10; i++) {
    const client = await new Client().come(turnstile, "1.1.1.1");
    client.turn!.end();
    client.turn!.end();
  }
});

// ---------------------------------------------------------------------------------------------------------
// On a clock that the test turns, without chance: each random wait is as long as it may be

const PLACE = "1.1.1.1";

function onClock(claim: string, body: (clock: TurnedClock, turnstile: Turnstile) => Promise<void>): void {
  Deno.test(claim, async () => {
    using clock = new TurnedClock();
    const { random } = Math;
    Math.random = () => 1;
    try {
      await body(clock, new Turnstile(() => {}));
    } finally {
      Math.random = random;
    }
    assertEquals(clock.timers, 0, "Timers that are left");
  });
}

/** Lets every promise that is settled have its effect. */
async function settled(): Promise<void> {
  for (let turns = 0; turns < 20; turns++) await null;
}

/** So many come at once. */
async function arrive(turnstile: Turnstile, count = 1, place = PLACE): Promise<Client[]> {
  const clients = Array.from({ length: count }, () => new Client());
  for (const client of clients) client.come(turnstile, place).catch(() => {});
  await settled();
  return clients;
}

const turnsOf = (clients: readonly Client[]) => clients.filter(({ turn }) => turn).length;

/** @returns Those of so many that come at once that have their turn; none of them opens. */
async function atOnce(turnstile: Turnstile, place: string, count: number): Promise<Client[]> {
  return (await arrive(turnstile, count, place)).filter(({ turn }) => turn);
}

async function openMany(turnstile: Turnstile, place: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) (await new Client().come(turnstile, place)).open();
}

onClock(
  "An address whose handshakes open has more turns at once, few beside those that opened; a loss ends that",
  async (_clock, turnstile) => {
    await openMany(turnstile, "1.1.1.1", 19);
    const [first, second, ...others] = await atOnce(turnstile, "1.1.1.1", 2);
    assertEquals(others, []);
    first!.open();
    second!.open();
    assertEquals((await atOnce(turnstile, "1.1.1.1", 30)).length, 3);
    await openMany(turnstile, "2.2.2.2", 5_000);
    const all = await arrive(turnstile, 80, "2.2.2.2");
    const many = all.filter(({ turn }) => turn);
    assertEquals(many.length, 64);
    many[0]!.leave();
    // Those that were let in may still open, and hand on no turn while there are too many.
    for (const client of many.slice(1, 62)) client.turn!.end();
    const waits = new Client();
    const coming = waits.come(turnstile, "2.2.2.2");
    await settled();
    assertEquals(waits.turn, undefined, "it waits for a random time");
    waits.leave();
    await assertRejects(() => coming);
    for (const client of all) client.leave();
    await settled();
  },
);

onClock(
  "Addresses are forgotten, the oldest first, but for those that cost a descriptor",
  async (_clock, turnstile) => {
    (await new Client().come(turnstile, "lost")).leave();
    await openMany(turnstile, "first", 40);
    for (let i = 0; i < 20_000; i++) turnstile.left(`${i}`);
    assertEquals(turnstile.size, 20_000);
    assertEquals((await atOnce(turnstile, "first", 30)).length, 2, "what was earned is forgotten");
    const client = new Client();
    const coming = client.come(turnstile, "lost");
    await settled();
    assertEquals(client.turn, undefined, "what was lost is not");
    client.leave();
    await assertRejects(() => coming);
  },
);

/** Fails unless this client's turn comes when so many milliseconds have passed, and not before. */
async function assertWaits(clock: TurnedClock, client: Client, ms: number): Promise<void> {
  await settled();
  clock.pass(ms - 1);
  await settled();
  assertEquals(client.turn, undefined, `It waited less than ${ms} ms`);
  clock.pass(1);
  await settled();
  assert(client.turn, `It waits longer than ${ms} ms`);
}

onClock(
  "A client that has left before it comes is not answered, and the next one waits",
  async (clock, turnstile) => {
    const gone = new Client();
    gone.leave();
    await assertRejects(() => gone.come(turnstile, PLACE));
    const [next] = await arrive(turnstile);
    await assertWaits(clock, next!, 400);
    next!.open();
  },
);

onClock(
  "A client that leaves while it waits for a random time ends that, and frees nobody's turn",
  async (clock, turnstile) => {
    turnstile.left(PLACE);
    const leaver = new Client();
    const coming = leaver.come(turnstile, PLACE);
    await settled();
    leaver.leave();
    await assertRejects(() => coming);
    assertEquals(clock.timers, 0);
    const all = await arrive(turnstile, 4);
    clock.pass(400);
    await settled();
    assertEquals(turnsOf(all), 2);
    for (const client of all) client.turn?.end();
    await settled();
    assertEquals(turnsOf(all), 4);
  },
);

onClock(
  "A turn ends once, however often that is said, and one that was lost costs one descriptor",
  async (clock) => {
    const lost: string[] = [];
    const turnstile = new Turnstile((place) => lost.push(place));
    const [first, second] = await arrive(turnstile, 2);
    for (let i = 0; i < 3; i++) first!.turn!.end();
    assertEquals(turnsOf(await arrive(turnstile, 3)), 1);
    for (let i = 0; i < 3; i++) second!.turn!.lost();
    second!.turn!.end();
    assertEquals(lost, [PLACE]);
    await settled();
    clock.pass(450); // for those that waited beside it
  },
);

onClock("An address is suspected for a minute after a client left or flooded", async (clock, turnstile) => {
  turnstile.flooded(PLACE);
  clock.pass(59_999);
  assertEquals([turnstile.hasFlooded(PLACE), turnstile.hasFlooded("2.2.2.2")], [true, false]);
  const [early] = await arrive(turnstile);
  assertEquals(early!.turn, undefined);
  clock.pass(2);
  assertEquals(turnstile.hasFlooded(PLACE), false);
  const [late] = await arrive(turnstile);
  assert(late!.turn, "A minute is over");
  clock.pass(400);
  await settled();
  for (const client of [early!, late!]) client.turn!.end();
  assertEquals(turnstile.size, 0, "Nothing is known against it any more");
});

onClock(
  "An address waits longer for each descriptor it cost, up to two seconds, and less after a minute",
  async (clock, turnstile) => {
    let lost = 0;
    for (const count of [1, 2, 10, 31, 32, 33, 60]) {
      for (; lost < count; lost++) {
        const [client] = await arrive(turnstile);
        clock.pass(2_000);
        await settled();
        client!.leave();
      }
      const [client] = await arrive(turnstile);
      await assertWaits(clock, client!, Math.min(2_000, 400 + 50 * count));
      client!.open();
      if (count > 10) continue;
      clock.pass(60_001);
      const [late] = await arrive(turnstile);
      await assertWaits(clock, late!, 50 * count);
      late!.open();
    }
  },
);

onClock(
  "Whoever waits for a turn beside one that is lost waits for a random time, once",
  async (clock, turnstile) => {
    const [first, second] = await arrive(turnstile, 2);
    const [third] = await arrive(turnstile);
    first!.leave();
    await settled();
    assertEquals(third!.turn, undefined, "There is room, and its time is not over");
    await assertWaits(clock, third!, 450);
    const [fourth] = await arrive(turnstile);
    clock.pass(450);
    await settled();
    assertEquals(fourth!.turn, undefined, "There is no room");
    second!.leave();
    await settled();
    assert(fourth!.turn, "It has waited");
  },
);

onClock("What an address earned is gone when one of its clients leaves", async (clock, turnstile) => {
  await openMany(turnstile, PLACE, 40);
  turnstile.left(PLACE);
  clock.pass(60_001);
  assertEquals((await atOnce(turnstile, PLACE, 10)).length, 2);
});

onClock("An address of which there is nothing to know is forgotten at once", async (_clock, turnstile) => {
  for (const client of await arrive(turnstile, 2)) client.turn!.end();
  assertEquals(turnstile.size, 0);
  const [opens] = await arrive(turnstile);
  opens!.open();
  assertEquals(turnstile.size, 1);
});

onClock(
  "An address whose handshakes are under way is not forgotten, nor one that has waited",
  async (clock, turnstile) => {
    const [first] = await arrive(turnstile, 2, "busy");
    turnstile.left("slow");
    const [slow] = await arrive(turnstile, 1, "slow");
    turnstile.left("again");
    for (let i = 0; i < 19_990; i++) turnstile.left(`${i}`);
    turnstile.left("again");
    for (let i = 0; i < 200; i++) turnstile.left(`later ${i}`);
    const [third] = await arrive(turnstile, 1, "busy");
    assertEquals(third!.turn, undefined);
    first!.open();
    await settled();
    assert(third!.turn);
    assertEquals(turnsOf(await arrive(turnstile, 1, "again")), 0, "What it did last counts");
    clock.pass(400);
    await settled();
    assert(slow!.turn);
    // It was forgotten while it waited, and is known again.
    assertEquals(turnsOf(await arrive(turnstile, 1, "slow")), 0);
    clock.pass(400);
  },
);
