/** A broker over several, on no Redis at all: how ten thousand subscriptions follow their channels. */
import { assertEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import type { Broker, Subscriber, Subscription } from "../../src/broker/broker.ts";
import { RoutedBroker } from "../../src/broker/routed.ts";
import { slotOf } from "../../src/redis/commands.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { TurnCounter } from "../../testkit/turn_counter.ts";

const COUNT = 10_000;
const MOVED = "Redis keeps this user's data on another master than before, and subscriptions follow it";

/** A master's broker: it counts what is subscribed there. */
class FakeBroker implements Partial<Broker> {
  readonly channels = new Set<string>();
  /** Subscriptions there have to wait. */
  gate: Promise<void> = Promise.resolve();

  unavailable = (): string | undefined => undefined;
  close = () => Promise.resolve();
  subscribe = async (channel: string): Promise<Subscription> => {
    await this.gate;
    this.channels.add(channel);
    return { channel, close: () => Promise.resolve(void this.channels.delete(channel)) };
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

Deno.test("Ten thousand subscriptions are moved in slices, and sends are refused until the last is there", async () => {
  const [old, next] = [new FakeBroker(), new FakeBroker()];
  let home = old;
  const broker = new RoutedBroker("sockets", {
    of: () => home as unknown as Broker,
    all: () => [old, next] as unknown as Broker[],
    reason: () => undefined,
    canMove: true,
    look: () => Promise.resolve(),
  });
  using turns = new TurnCounter();
  const subscriber: Subscriber = { message() {}, lost: () => turns.count(), restored() {} };
  const names = Array.from({ length: COUNT }, (_, i) => `u${i}`);
  for (const name of names) await broker.subscribe(name, subscriber);
  using clock = new StandingClock();

  home = next;
  const arrive = Promise.withResolvers<void>();
  next.gate = arrive.promise;
  const last = names.at(-1)!;
  broker.moved(new Set(names.map(slotOf)));
  assertEquals(turns.all, 32);
  clock.pass(2_000);
  for (let i = 0; i < COUNT && turns.all < COUNT; i++) {
    assertEquals(broker.unavailable(last), MOVED, "it was not told to move yet");
    await turn();
  }
  await turn();
  assertEquals([turns.most, broker.unavailable(last)], [250, MOVED], "it is on its way");
  arrive.resolve();
  for (let i = 0; i < COUNT && next.channels.size < COUNT; i++) await turn();
  await turn();
  assertEquals([old.channels.size, broker.unavailable(last), broker.unavailable("u0")], [
    0,
    undefined,
    undefined,
  ]);
  await broker.close();
});
