/** Dedicated subscriptions by the thousand, on no Redis at all: what all of them do in one turn of the event loop. */
import { assert, assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import type { Subscriber } from "../../src/broker/broker.ts";
import { DedicatedSubscriptions } from "../../src/broker/dedicated.ts";
import { Dialler } from "../../src/broker/dialler.ts";
import type { Redis } from "../../src/redis/commands.ts";
import { Standalone } from "../../src/redis/standalone.ts";
import { UrlSource } from "../../src/redis/url_source.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

const COUNT = 1_000;
/** A turn of the event loop has the end of one slice and the beginning of the next at most. */
const MOST = 2 * 250;
/** What takes more turns never ends. */
const MANY_TURNS = 10_000;

async function turnsUntil(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < MANY_TURNS && !isSo(); i++) await new Promise((resolve) => setImmediate(resolve));
  assert(isSo());
}

/** A connection on which Redis confirms the subscription, and then says what the test wants. */
class QuietConn implements Pick<Deno.TcpConn, "read" | "write" | "closeWrite" | "close"> {
  readonly #onClose: () => void;
  #space: Uint8Array = new Uint8Array();
  #reading = Promise.withResolvers<number | null>();

  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  read(space: Uint8Array): Promise<number | null> {
    this.#space = space;
    return this.#reading.promise;
  }

  write(bytes: Uint8Array): Promise<number> {
    // By then it is being read.
    setImmediate(() => this.say("+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nu\r\n:1\r\n"));
    return Promise.resolve(bytes.length);
  }

  say(text: string): void {
    const { resolve } = this.#reading;
    this.#reading = Promise.withResolvers();
    resolve(new TextEncoder().encodeInto(text, this.#space).written);
  }

  end(): void {
    this.#reading.resolve(null);
  }

  closeWrite(): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  close(): void {
    this.#onClose();
    this.end();
  }
}

/** Thousands of subscriptions, whose Redis is there or refuses to be dialled. */
class World implements Disposable {
  readonly clock = new StandingClock();
  readonly dials = new TurnCounter();
  readonly closes = new TurnCounter();
  losses = 0;
  readonly messages: unknown[] = [];
  readonly conns: QuietConn[] = [];
  isThere = true;
  restored = 0;
  readonly subscriptions: DedicatedSubscriptions;
  readonly #dialler: Dialler;
  readonly #connect = Deno.connect;

  constructor() {
    const redis = {
      availability: { reason: undefined, whenReady: () => Promise.resolve(), warn() {} },
      clients: () => Promise.resolve({ connected: 0, max: Infinity }),
      onOtherServer() {},
    } as unknown as Redis;
    const topology = new Standalone(new UrlSource({ url: "redis://127.0.0.1:1" }));
    this.#dialler = new Dialler({ topology, redis, timeoutMs: 3_000 });
    this.subscriptions = new DedicatedSubscriptions({ dialler: this.#dialler, redis });
    Deno.connect = (() => {
      this.dials.count();
      if (!this.isThere) return Promise.reject(new Deno.errors.ConnectionRefused("refused"));
      const conn = new QuietConn(() => this.closes.count());
      this.conns.push(conn);
      return Promise.resolve(conn);
    }) as unknown as typeof Deno.connect;
  }

  async subscribe(): Promise<void> {
    const subscriber: Subscriber = {
      message: (payload) => void this.messages.push(payload),
      lost: () => void this.losses++,
      restored: () => void this.restored++,
    };
    const subscribing = Array.from(
      { length: COUNT },
      (_, i) => this.subscriptions.subscribe(`u${i}`, subscriber, undefined),
    );
    await Promise.all(subscribing);
  }

  [Symbol.dispose](): void {
    Deno.connect = this.#connect;
    this.#dialler.close();
    for (const turns of [this.dials, this.closes]) turns[Symbol.dispose]();
    this.clock[Symbol.dispose]();
  }
}

function assertInSlices(turns: TurnCounter, all: number): void {
  assertEquals(turns.all, all);
  assert(turns.most <= MOST, `${turns.most} in one turn`);
}

Deno.test("Of thousands of subscriptions that are lost in one moment only some are dialled in each turn", async () => {
  using world = new World();
  const { conns, closes, dials } = world;
  await world.subscribe();
  assertInSlices(dials, COUNT);
  for (const conn of conns.splice(0)) conn.end();
  await turnsUntil(() => world.restored === COUNT);
  // That is known at once.
  assertEquals(world.losses, COUNT);
  assertInSlices(closes, COUNT);
  assertInSlices(dials, 2 * COUNT);
  await world.subscriptions.close();
});

Deno.test("Nor where each dial fails at once", async () => {
  using world = new World();
  const { conns, dials } = world;
  await world.subscribe();
  world.isThere = false;
  for (const conn of conns) conn.end();
  await turnsUntil(() => dials.all >= 2 * COUNT);
  assert(dials.most <= MOST, `${dials.most} in one turn`);
  await world.subscriptions.close();
});

Deno.test("Thousands are closed in slices; from the first one on nothing more is handed on", async () => {
  using world = new World();
  const { conns, closes, messages } = world;
  await world.subscribe();
  const message = (payload: string) => `*3\r\n$7\r\nmessage\r\n$1\r\nu\r\n$1\r\n${payload}\r\n`;
  const last = conns.at(-1)!;
  last.say(message("1"));
  await turnsUntil(() => messages.length > 0);
  const closing = world.subscriptions.close();
  last.say(message("2"));
  await closing;
  // Each half-closes its connection, and lets go of it when Redis has hung up.
  assertInSlices(closes, 2 * COUNT);
  assertEquals(messages, ["1"]);
});
