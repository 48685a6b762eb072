/** What the probe makes of what it finds, trial by trial; on no Redis. */
import { assertEquals } from "@std/assert";
import { Probe } from "../../src/broker/probe.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import type { Redis } from "../../src/redis/commands.ts";
import type { RedisConnection } from "../../src/redis/raw_connection.ts";
import { encodeCommand, RespParser } from "../../src/redis/resp.ts";
import { REPLICA } from "../../src/redis/server_info.ts";
import { withDeadline } from "../../testkit/deadline.ts";
import { setImmediate } from "node:timers";
import { TurnedClock } from "../../testkit/turned_clock.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

const WAIT_MS = 20_000;

/** A Redis that answers trials as the test says, and rings at the end of each. */
class World implements AsyncDisposable {
  readonly log = memoryLog();
  readonly counted: boolean[] = [];
  scripts: string | undefined;
  leadsToReplica = false;
  /** How many trials have begun. */
  begun = 0;
  /** What a subscription hears, made of what is published. */
  heard = (payload: string): string[] => [payload];
  #last = "";
  #onOther = () => {};
  #trial = Promise.withResolvers<void>();
  readonly probe: Probe;

  constructor() {
    const redis = {
      availability: { reason: undefined, whenReady: () => Promise.resolve() },
      onOtherServer: (listener: () => void) => this.#onOther = listener,
      tryScripts: () => {
        this.begun++;
        // The trial before has ended, and what it found was said.
        this.#trial.resolve();
        return Promise.resolve(this.scripts);
      },
      publish: (_: string, payload: string) => Promise.resolve(this.#last = payload).then(() => 0),
      ownCounts: () => Promise.resolve([0]),
    };
    this.probe = new Probe({
      redis: redis as unknown as Redis,
      channel: () => "a",
      dial: () =>
        this.leadsToReplica
          ? Promise.reject(new BrokerUnavailableError(REPLICA))
          : Promise.resolve(this.#dial()),
      onCounted: (counts) => this.counted.push(counts),
      onWorking: () => this.log.info("working"),
      log: this.log,
    });
  }

  /** Lets so many trials end that have not begun. */
  async trials(count: number): Promise<void> {
    for (let i = 0; i <= count; i++) {
      this.#trial = Promise.withResolvers();
      await withDeadline(this.#trial.promise, WAIT_MS, "the next trial");
    }
  }

  becomeAnother(): void {
    this.#onOther();
  }

  said(): unknown[] {
    return this.log.records.splice(0).map(({ event, fields }) => fields.reason ?? event);
  }

  #dial(): RedisConnection {
    const parser = new RespParser();
    let isRead = false;
    const read = () => {
      if (isRead) return Promise.resolve(null);
      isRead = true;
      const bytes = this.heard(this.#last).flatMap((text) => [...encodeCommand("message", "a", text)]);
      const space = parser.space();
      space.set(bytes);
      return Promise.resolve(bytes.length || null);
    };
    return { parser, read, close() {} } as unknown as RedisConnection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.probe.close();
  }
}

Deno.test("Probe takes no number for a fault where subscribers are not counted, and asks each server anew", async () => {
  await using world = new World();
  await world.trials(1);
  assertEquals([world.counted, world.probe.counts, world.probe.unready()], [[false], false, undefined]);
  world.becomeAnother();
  await world.trials(1);
  assertEquals([world.counted, world.said()], [[false, false], []]);
});

Deno.test("Probe says once what is wrong and once that it is over, and wants to hear its own message", async () => {
  await using world = new World();
  world.heard = () => ["another"];
  await world.trials(2);
  assertEquals(world.said(), ["Redis closed a new subscription"]);
  world.scripts = "no scripts";
  await world.trials(1);
  assertEquals([world.probe.unready(), world.said()], ["no scripts", ["no scripts"]]);
  world.scripts = undefined;
  world.heard = (payload) => ["another", payload];
  await world.trials(1);
  assertEquals([world.probe.unready(), world.said()], [undefined, ["ready again", "working"]]);
});

Deno.test("Probe that was led to a replica doubts every way until ten trials in a row were not, or Redis is another", async () => {
  using clock = new TurnedClock();
  await using world = new World();
  const trials = async (count: number, leadsToReplica: boolean) => {
    world.leadsToReplica = leadsToReplica;
    // The last of them has ended when another begins.
    for (const due = world.begun + count; world.begun < due;) {
      clock.pass(100);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    return [world.probe.unready(), world.said()];
  };
  await trials(1, false);
  assertEquals(await trials(1, true), [REPLICA, [REPLICA]]);
  assertEquals(await trials(9, false), [REPLICA, []]);
  assertEquals(await trials(1, true), [REPLICA, []]);
  assertEquals(await trials(9, false), [REPLICA, []], "counted from the last one");
  assertEquals(await trials(1, false), [undefined, ["ready again", "working"]]);
  assertEquals(await trials(1, true), [REPLICA, [REPLICA]]);
  world.becomeAnother();
  assertEquals(await trials(1, false), [undefined, ["ready again", "working"]]);
});

Deno.test("Probe that is closed before its first trial keeps nobody waiting for that", async () => {
  const world = new World();
  await world.probe.close();
  await withDeadline(world.probe.first(10 * WAIT_MS), WAIT_MS, "the wait to end");
});
