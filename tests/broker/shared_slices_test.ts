/** One shared connection with thousands of channels, on no Redis at all: how many it walks over in one turn of the event loop. */
import { assert, assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import type { Subscriber } from "../../src/broker/broker.ts";
import { SharedConnection } from "../../src/broker/shared_connection.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { Attempt } from "../../src/async/attempt.ts";
import { Pace } from "../../src/async/slices.ts";
import { PLAIN } from "../../src/redis/pubsub_words.ts";
import type { PubSubContext } from "../../src/redis/pubsub_connection.ts";
import type { RedisConnection } from "../../src/redis/raw_connection.ts";
import { RespParser } from "../../src/redis/resp.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";
import { WalkCounter } from "../../testkit/walk_counter.ts";

const COUNT = 2_000;
/** The end of one slice and the beginning of the next, of two that go on at one time. */
const MOST = 4 * 250;
/** What takes more turns never ends. */
const MANY_TURNS = 10_000;

async function turnsUntil(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < MANY_TURNS && !isSo(); i++) await new Promise((resolve) => setImmediate(resolve));
  assert(isSo());
}

function answer(kind: string, channel: string): string {
  return `*3\r\n$${kind.length}\r\n${kind}\r\n$${channel.length}\r\n${channel}\r\n:1\r\n`;
}

/** Redis at the other end: it confirms what is asked, but for channels that it forbids. */
class Wire {
  readonly parser = new RespParser();
  isClosed = false;
  /** So it is dialled again at once. */
  hasDelivered = true;
  generation = 0;
  readonly #isForbidden: (channel: string) => boolean;
  #said = new Uint8Array();
  #wake: () => void = () => {};
  #hasEnded = false;

  constructor(isForbidden: (channel: string) => boolean) {
    this.#isForbidden = isForbidden;
  }

  write(bytes: Uint8Array): Promise<void> {
    let said = "";
    for (const command of new TextDecoder().decode(bytes).split(/^\*\d+\r\n/m)) {
      const [name, ...channels] = command.split("\r\n").filter((word) => /^[^$]/.test(word));
      if (name === "PING") said += "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
      else if (channels.some(this.#isForbidden)) said += "-NOPERM no\r\n";
      else for (const channel of channels) said += answer(name!.toLowerCase(), channel);
    }
    this.#said = new TextEncoder().encode(new TextDecoder().decode(this.#said) + said);
    this.#wake();
    return Promise.resolve();
  }

  async read(): Promise<number | null> {
    while (this.#said.length === 0 && !this.#hasEnded) {
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    if (this.#hasEnded) return null;
    const space = this.parser.space();
    const count = Math.min(space.length, this.#said.length);
    space.set(this.#said.subarray(0, count));
    this.#said = this.#said.slice(count);
    return count;
  }

  close(): void {
    this.isClosed = this.#hasEnded = true;
    this.#wake();
  }

  closeWrite(): Promise<void> {
    this.close();
    return Promise.resolve();
  }
}

class World implements Disposable {
  readonly clock = new StandingClock();
  readonly walks = new WalkCounter(COUNT / 2);
  readonly told = new TurnCounter();
  readonly connection: SharedConnection;
  lost = 0;
  restored = 0;
  wires: Wire[] = [];
  /** The name of a channel that Redis forbids. */
  forbidden = "";
  readonly #deadlines = new Deadlines(3_000);

  constructor() {
    const dialling: PubSubContext = {
      pace: new Pace(),
      closeDeadlines: this.#deadlines,
      attempt: (signal, work) => this.#attempt(signal, work),
      redial: (signal, work) => this.#attempt(signal, work),
      whenReady: () => Promise.resolve(),
      isOld: () => false,
    };
    this.connection = new SharedConnection(dialling, {
      dial: () => {
        const wire = new Wire((channel) => channel === this.forbidden);
        this.wires.push(wire);
        return Promise.resolve(wire as unknown as RedisConnection);
      },
      onSubscribed() {},
      onLost: (count) => void (this.lost += count),
      onConnectionLost() {},
      onRefused() {},
      onTaken() {},
      words: PLAIN,
      log: undefined,
    });
  }

  async subscribe(): Promise<void> {
    const subscriber: Subscriber = {
      message() {},
      lost: () => this.told.count(),
      restored: () => void this.restored++,
    };
    await Promise.all(
      Array.from({ length: COUNT }, (_, i) => this.connection.subscribe(`u${i}`, subscriber, undefined)),
    );
  }

  [Symbol.dispose](): void {
    this.#deadlines.close();
    for (const counter of [this.told, this.walks]) counter[Symbol.dispose]();
    this.clock[Symbol.dispose]();
  }

  async #attempt<T>(signal: AbortSignal | undefined, work: (attempt: Attempt) => Promise<T>): Promise<T> {
    const attempt = new Attempt(undefined, { signal });
    try {
      return await work(attempt);
    } finally {
      attempt.end();
    }
  }
}

Deno.test("A shared connection that is lost tells of thousands of channels, and asks for them again, in slices", async () => {
  using world = new World();
  const { connection, told, walks } = world;
  await world.subscribe();
  assertEquals(walks.most <= MOST, true, `${walks.most} while they came`);
  const held = connection.confirmed(`u${COUNT - 1}`);
  assert(held);
  world.wires[0]!.close();
  await turnsUntil(() => world.lost > 0);
  assertEquals(
    connection.confirmed(`u${COUNT - 1}`),
    undefined,
    "that none counts any more is known at once",
  );
  await turnsUntil(() => world.restored === COUNT);
  assertEquals([told.all, world.lost], [COUNT, 0]);
  assert(told.most <= MOST, `${told.most} told in one turn`);
  assert(walks.all >= 2 * COUNT && walks.most <= MOST, `${walks.most} of ${walks.all} in one turn`);
  await connection.close();
});

Deno.test("Its health checks walk over no channel but those that Redis refused, and these are asked for again", async () => {
  using world = new World();
  const { connection, walks } = world;
  await world.subscribe();
  const before = walks.all;
  for (let i = 0; i < 2; i++) connection.checkHealth();
  assertEquals(walks.all, before);
  world.forbidden = "u7";
  world.wires[0]!.close();
  // Asked for together with others it takes them with it, until it is asked for alone.
  await turnsUntil(() => world.restored === COUNT - 1);
  world.forbidden = "";
  connection.checkHealth();
  await turnsUntil(() => world.restored === COUNT);
  await connection.close();
});

Deno.test("When it is closed it lets go of thousands of channels in slices", async () => {
  using world = new World();
  const { connection, walks } = world;
  await world.subscribe();
  const before = walks.all;
  await connection.close();
  assert(walks.all >= before + COUNT && walks.most <= MOST, `${walks.most} in one turn`);
});
