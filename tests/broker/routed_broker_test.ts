/** A broker over several: who is asked for what, and what is refused while a channel is on its way; on stubs of brokers. */
import { assertEquals, assertRejects } from "@std/assert";
import { setImmediate } from "node:timers";
import { isMisrouted, RoutedBroker } from "../../src/broker/routed.ts";
import type { Broker } from "../../src/broker/broker.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { slotOf } from "../../src/redis/slots.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";
import { StubBroker } from "../../testkit/stub_broker.ts";

const FOLLOWS = "Redis keeps this user's data on another master than before, and subscriptions follow it";
const NOBODY = "Nobody keeps it";

/** What Redis answers with, as the client library tells it. */
class SimpleError extends Error {}

const misrouted = (text = "MOVED 749 127.0.0.1:7001") =>
  new BrokerUnavailableError("elsewhere", { cause: new SimpleError(text) });

/** Channels belong to the broker whose number they begin with. */
class Stage {
  readonly brokers = [new StubBroker(), new StubBroker(), new StubBroker()] as const;
  readonly moved = new Map<string, Broker>();
  canMove = true;
  reason: string | undefined;
  looks = 0;
  onLook = () => {};
  readonly broker: RoutedBroker;

  constructor() {
    const { brokers, moved } = this;
    const canMove = () => this.canMove;
    this.broker = new RoutedBroker("sockets", {
      of(channel) {
        const broker = moved.get(channel) ?? brokers[Number(channel[0])];
        if (!broker) throw new BrokerUnavailableError(NOBODY);
        return broker;
      },
      all: () => brokers,
      reason: () => this.reason,
      get canMove() {
        return canMove();
      },
      look: () => {
        this.looks++;
        this.onLook();
        return Promise.resolve();
      },
    });
  }

  /** Resolves when its subscriptions have been told to. */
  async move(channel: string, to: Broker): Promise<void> {
    this.moved.set(channel, to);
    this.broker.moved(new Set([slotOf(channel)]));
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

Deno.test("RoutedBroker can be used where one broker can, and for a channel where its own can", () => {
  const { brokers: [first, second, third], broker } = new Stage();
  first.reason = "first is away";
  second.reason = "second is away";
  assertEquals(broker.unavailable(), undefined);
  assertEquals([broker.unavailable("0a"), broker.unavailable("1a"), broker.unavailable("2a")], [
    "first is away",
    "second is away",
    undefined,
  ]);
  assertEquals(broker.unavailable("9a"), NOBODY);
  third.reason = "third is away";
  assertEquals(broker.unavailable(), "first is away");
});

Deno.test("RoutedBroker says of a cluster that is not known what keeps it from that", () => {
  const stage = new Stage();
  for (const broker of stage.brokers) broker.reason = "away";
  stage.reason = "Redis is not available: none of its cluster's nodes can be reached";
  assertEquals(stage.broker.unavailable(), stage.reason);
});

Deno.test("RoutedBroker publishes where the channel belongs, and nowhere while that can't be used", async () => {
  const { brokers: [first, second], broker } = new Stage();
  assertEquals([await broker.publish("0a", "x"), await broker.publish("1b", "y")], [1, 1]);
  second.reason = "second is away";
  await assertRejects(() => broker.publish("1b", "z"), BrokerUnavailableError, "second is away");
  await assertRejects(() => broker.publish("9b", "z"), BrokerUnavailableError, NOBODY);
  assertEquals([first.published, second.published], [["0a x"], ["1b y"]]);
});

Deno.test("RoutedBroker asks each broker once for its counts, and has them in the order asked", async () => {
  const { brokers: [first, second, third], broker } = new Stage();
  assertEquals(await broker.counts([]), []);
  const channels = ["1bb", "0a", "1bbbb", "0aa", "1b"];
  assertEquals(await broker.counts(channels), [3, 2, 5, 3, 2]);
  assertEquals([first.asked, second.asked, third.asked], [[["0a", "0aa"]], [["1bb", "1bbbb", "1b"]], []]);
  await assertRejects(() => broker.counts(["0a", "9a"]), BrokerUnavailableError, NOBODY);
});

Deno.test("RoutedBroker asks once more for counts that were asked for in the wrong place", async () => {
  const stage = new Stage();
  const { brokers: [first, second], broker } = stage;
  first.faults.push(misrouted());
  stage.onLook = () => stage.moved.set("0a", second);
  assertEquals([await broker.counts(["0a", "1bbb"]), stage.looks], [[2, 4], 1]);
  assertEquals(second.asked.at(-1), ["0a", "1bbb"]);

  const twice = new Stage();
  twice.brokers[0].faults.push(misrouted(), misrouted(), misrouted());
  await assertRejects(() => twice.broker.counts(["0a"]), BrokerUnavailableError, "elsewhere");
  assertEquals([twice.looks, twice.brokers[0].asked.length], [1, 2]);

  const away = new Stage();
  away.brokers[0].faults.push(new BrokerUnavailableError("away"));
  await assertRejects(() => away.broker.counts(["0a"]), BrokerUnavailableError, "away");
  assertEquals([away.looks, away.brokers[0].asked.length], [0, 1]);
});

Deno.test("What is elsewhere is told by what Redis said, and by nothing else", () => {
  for (const text of ["MOVED 1 a:1", "ASK 1 a:1", "TRYAGAIN Multiple keys"]) {
    assertEquals(isMisrouted(misrouted(text)), true, text);
  }
  for (
    const error of [
      misrouted("CLUSTERDOWN x"),
      new BrokerUnavailableError("MOVED 1 a:1"),
      new Error("MOVED 1"),
    ]
  ) {
    assertEquals(isMisrouted(error), false);
  }
});

Deno.test("RoutedBroker refuses what is sent to a channel that has just moved, and to no other", async () => {
  const stage = new Stage();
  const { brokers: [first, second, third], broker } = stage;
  using clock = new StandingClock();
  await stage.move("0a", second);
  assertEquals([broker.unavailable("0a"), broker.unavailable("0b"), broker.unavailable()], [
    FOLLOWS,
    undefined,
    undefined,
  ]);
  await assertRejects(() => broker.publish("0a", "x"), BrokerUnavailableError, FOLLOWS);
  await assertRejects(() => broker.counts(["1b", "0a"]), BrokerUnavailableError, FOLLOWS);
  assertEquals([first.published, second.published, second.asked], [[], [], []]);
  clock.pass(1_499);
  assertEquals(broker.unavailable("0a"), FOLLOWS);
  clock.pass(1);
  assertEquals([broker.unavailable("0a"), await broker.counts(["0a"])], [undefined, [2]]);
  // One that moves again before that is waited for anew.
  await stage.move("0b", second);
  clock.pass(1_000);
  await stage.move("0b", third);
  clock.pass(1_499);
  assertEquals(broker.unavailable("0b"), FOLLOWS);
  clock.pass(1);
  assertEquals(broker.unavailable("0b"), undefined);
  // Moved again it begins anew; and what is wrong with its broker says more.
  await stage.move("0a", first);
  assertEquals(broker.unavailable("0a"), FOLLOWS);
  first.reason = "first is away";
  assertEquals(broker.unavailable("0a"), "first is away");
});

Deno.test("RoutedBroker refuses for longer while subscriptions are on their way, and not for ever", async () => {
  const stage = new Stage();
  const { brokers: [, second, third], broker } = stage;
  const recorder = new Recorder();
  const subscriptions = [
    await broker.subscribe("0a", recorder),
    await broker.subscribe("1a", new Recorder()),
  ];
  second.isSlow = third.isSlow = true;
  using clock = new StandingClock();
  await stage.move("0a", second);
  await stage.move("1a", third);
  await stage.move("0c", second); // nobody here listens to it
  clock.pass(1_500);
  assertEquals([broker.unavailable("0a"), broker.unavailable("1a"), broker.unavailable("0c")], [
    FOLLOWS,
    FOLLOWS,
    undefined,
  ]);
  second.grant();
  await recorder.isRestored();
  await new Promise((resolve) => setTimeout(resolve));
  assertEquals([broker.unavailable("0a"), broker.unavailable("1a")], [undefined, FOLLOWS]);
  clock.pass(28_499);
  assertEquals(broker.unavailable("1a"), FOLLOWS);
  clock.pass(1);
  assertEquals(broker.unavailable("1a"), undefined);
  for (const subscription of subscriptions) await subscription.close();
});

Deno.test("RoutedBroker moves the subscriptions of the slots that moved, also one that is still coming", async () => {
  const stage = new Stage();
  const { brokers: [first, second], broker } = stage;
  const [moves, stays, comes] = [new Recorder(), new Recorder(), new Recorder()];
  const open = [await broker.subscribe("0a", moves), await broker.subscribe("0b", stays)];
  first.isSlow = true;
  const coming = broker.subscribe("0c", comes);
  for (const channel of ["0a", "0b", "0c"]) stage.moved.set(channel, second);
  broker.moved(new Set(["0a", "0c"].map(slotOf)));
  first.grant();
  open.push(await coming);
  await Promise.all([moves.isRestored(), comes.isRestored()]);
  assertEquals(second.subscriptions.map(({ channel }) => channel).toSorted(), ["0a", "0c"]);
  assertEquals(stays.changes, []);
  await Promise.all(open.map((subscription) => subscription.close()));
  // Closed, or never granted, they go nowhere.
  first.refusals.push(new BrokerUnavailableError("no"));
  stage.moved.clear();
  await assertRejects(() => broker.subscribe("0d", new Recorder()), BrokerUnavailableError, "no");
  for (const channel of ["0a", "0c", "0d"]) stage.move(channel, second);
  assertEquals(second.subscribes, 2);
});

Deno.test("RoutedBroker hands out the broker's own subscriptions where no channel can move", async () => {
  const stage = new Stage();
  stage.canMove = false;
  const subscription = await stage.broker.subscribe("0a", new Recorder());
  assertEquals(subscription, stage.brokers[0].subscriptions[0]!);
  await assertRejects(() => stage.broker.subscribe("9a", new Recorder()), BrokerUnavailableError, NOBODY);
});

Deno.test("RoutedBroker that is closed closes all, those on their way as well", async () => {
  const stage = new Stage();
  const { brokers: [first, second], broker } = stage;
  const recorder = new Recorder();
  await broker.subscribe("0a", recorder);
  await broker.subscribe("0b", recorder);
  second.isSlow = true;
  await stage.move("0a", second);
  await second.bell.until(() => second.subscribes === 1, "the second one to be asked");
  first.isSlow = true;
  const coming = broker.subscribe("0c", recorder);
  await broker.close();
  await assertRejects(() => coming, BrokerUnavailableError, "The broker is closed");
  assertEquals(stage.brokers.map(({ isClosed }) => isClosed), [true, true, true]);
  const left = [...first.subscriptions, ...second.subscriptions].filter(({ isClosed }) => !isClosed);
  assertEquals([left, recorder.changes], [[], ["lost"]]);
});
