/** A subscription whose channel comes to belong to another broker, at every moment that it may; on stubs of brokers. */
import { assertEquals, assertRejects } from "@std/assert";
import type { Subscriber } from "../../src/broker/broker.ts";
import { MovingSubscription } from "../../src/broker/moving_subscription.ts";
import type { Log } from "../../src/log/log.ts";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { Recorder } from "../../testkit/recorder.ts";
import { StubBroker } from "../../testkit/stub_broker.ts";
import { TurnedClock } from "../../testkit/turned_clock.ts";

/** A subscription, and brokers of which its channel belongs to `home`. */
class Stage {
  readonly brokers = [new StubBroker(), new StubBroker(), new StubBroker()] as const;
  readonly recorder = new Recorder();
  home: StubBroker | undefined = this.brokers[0];
  looks = 0;
  closes = 0;
  /** Happens when it is found out anew where the channel belongs. */
  onLook = () => {};
  #moving = 0;
  readonly subscription: MovingSubscription;

  /** @param onTold Runs in every call of the subscriber, after it was written down. */
  /** Whether it is on its way. */
  get isMoving(): boolean {
    return this.#moving > 0;
  }

  constructor(log?: Log, onTold: (what: "message" | "lost" | "restored") => void = () => {}) {
    const { recorder } = this;
    const subscriber: Subscriber = {
      message(payload, byteLength) {
        recorder.message(payload, byteLength);
        onTold("message");
      },
      lost(reason) {
        recorder.lost(reason);
        onTold("lost");
      },
      restored() {
        recorder.restored();
        onTold("restored");
      },
    };
    this.subscription = new MovingSubscription("alice", subscriber, {
      onMoving: (count) => this.#moving += count,
      log,
      of: () => {
        if (!this.home) throw new BrokerUnavailableError("Nobody keeps it");
        return this.home;
      },
      look: () => {
        this.looks++;
        this.onLook();
        return Promise.resolve();
      },
      onClosed: () => void this.closes++,
    });
  }

  moveTo(home: StubBroker | undefined): void {
    this.home = home;
    this.subscription.move();
  }

  /** How many subscriptions each broker has granted and not seen closed. */
  get held(): number[] {
    return this.brokers.map(({ subscriptions }) => subscriptions.filter(({ isClosed }) => !isClosed).length);
  }
}

/** Lets run what has nothing to wait for. */
const settle = () => new Promise((resolve) => setTimeout(resolve));

Deno.test("MovingSubscription goes where its channel does, and says lost and restored once", async () => {
  const stage = new Stage();
  const { brokers: [first, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  subscription.move(); // it is there
  assertEquals([stage.isMoving, stage.held], [false, [1, 0, 0]]);
  first.subscriptions[0]!.subscriber.message("1", 1);
  stage.moveTo(second);
  assertEquals([stage.isMoving, recorder.changes], [true, ["lost"]]);
  await recorder.isRestored();
  await settle();
  assertEquals([stage.isMoving, stage.held], [false, [0, 1, 0]]);
  second.subscriptions[0]!.subscriber.message("2", 1);
  assertEquals([recorder.payloads, recorder.changes], [["1", "2"], ["lost", "restored"]]);
  await subscription.close();
  assertEquals([stage.held, stage.closes], [[0, 0, 0], 1]);
});

Deno.test("MovingSubscription is at no other place before the old one is done with it", async () => {
  const stage = new Stage();
  const { brokers: [first, second], subscription } = stage;
  first.closesSlowly = true;
  await subscription.open(undefined);
  stage.moveTo(second);
  await settle();
  assertEquals([first.subscriptions[0]!.isClosed, second.subscribes], [true, 0]);
  first.subscriptions[0]!.isGone();
  await second.has(1);
  await subscription.close();
});

Deno.test("MovingSubscription that is told to go while it comes goes on when it has come", async () => {
  const stage = new Stage();
  const { brokers: [first, second], recorder, subscription } = stage;
  first.isSlow = true;
  const opened = subscription.open(undefined);
  stage.moveTo(second);
  assertEquals([stage.isMoving, second.subscribes], [false, 0]);
  first.grant();
  await opened;
  await recorder.isRestored();
  assertEquals([stage.held, recorder.changes], [[0, 1, 0], ["lost", "restored"]]);
  await subscription.close();
});

Deno.test("MovingSubscription that is refused at first looks where it belongs, and asks there once", async () => {
  const refusal = () => new BrokerUnavailableError("not here");
  const stage = new Stage();
  const { brokers: [first, second] } = stage;
  first.refusals.push(refusal());
  stage.onLook = () => stage.home = second;
  await stage.subscription.open(undefined);
  assertEquals([stage.held, stage.recorder.changes, stage.looks], [[0, 1, 0], [], 1]);
  await stage.subscription.close();

  const same = new Stage();
  same.brokers[0].refusals.push(refusal(), refusal());
  await assertRejects(() => same.subscription.open(undefined), BrokerUnavailableError, "not here");
  assertEquals([same.brokers[0].subscribes, same.looks], [1, 1]);

  const twice = new Stage();
  for (const broker of twice.brokers) broker.refusals.push(refusal());
  twice.onLook = () => twice.home = twice.brokers[twice.looks];
  await assertRejects(() => twice.subscription.open(undefined), BrokerUnavailableError, "not here");
  assertEquals(twice.brokers.map(({ subscribes }) => subscribes), [1, 1, 0]);

  const aborted = new Stage();
  aborted.brokers[0].isSlow = true;
  const controller = new AbortController();
  const opened = aborted.subscription.open(controller.signal);
  controller.abort(new Error("The client is gone"));
  await assertRejects(() => opened, Error, "The client is gone");
  assertEquals(aborted.looks, 0);
});

Deno.test("MovingSubscription tries again where it is refused, as long as it is wanted", async () => {
  const stage = new Stage();
  const { brokers: [, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  for (let i = 0; i < 3; i++) second.refusals.push(new BrokerUnavailableError("not yet"));
  stage.moveTo(second);
  await recorder.isRestored();
  assertEquals([second.subscribes, recorder.changes], [4, ["lost", "restored"]]);
  await subscription.close();
});

Deno.test("MovingSubscription waits for somebody to keep its channel", async () => {
  const stage = new Stage();
  const { brokers: [first, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  stage.moveTo(undefined);
  // Nobody has it: it stays where it may still be.
  assertEquals([stage.isMoving, stage.held, recorder.changes], [false, [1, 0, 0], []]);
  first.closesSlowly = true;
  stage.moveTo(second);
  stage.home = undefined;
  first.subscriptions[0]!.isGone();
  await settle();
  assertEquals([stage.isMoving, second.subscribes], [true, 0]);
  stage.home = second;
  await recorder.isRestored();
  assertEquals(recorder.changes, ["lost", "restored"]);
  await subscription.close();
});

Deno.test("MovingSubscription goes on to a third place, and back, when its channel does so meanwhile", async () => {
  for (const target of [2, 0]) {
    const stage = new Stage();
    const { brokers: [, second], recorder, subscription } = stage;
    await subscription.open(undefined);
    second.isSlow = true;
    stage.moveTo(second);
    await second.bell.until(() => second.subscribes === 1, "the second one to be asked");
    stage.moveTo(stage.brokers[target]!);
    second.grant();
    await stage.brokers[target]!.has(target === 0 ? 2 : 1);
    await recorder.isRestored();
    await settle();
    assertEquals([stage.held, stage.isMoving], [[0, 1, 2].map((i) => Number(i === target)), false]);
    recorder.assertPairs();
    assertEquals(recorder.changes.at(-1), "restored");
    await subscription.close();
  }
});

Deno.test("MovingSubscription that is paused is so in its new place, too", async () => {
  const stage = new Stage();
  const { brokers: [first, second, third], recorder, subscription } = stage;
  await subscription.open(undefined);
  subscription.pause();
  assertEquals(first.subscriptions[0]!.calls, ["pause"]);
  stage.moveTo(second);
  await recorder.isRestored();
  assertEquals(second.subscriptions[0]!.calls, ["pause"]);
  subscription.resume();
  assertEquals(second.subscriptions[0]!.calls, ["pause", "resume"]);
  await settle();
  // On its way it is paused, and resumed, and neither is forgotten.
  third.isSlow = true;
  stage.moveTo(third);
  subscription.pause();
  subscription.resume();
  third.grant();
  await third.has(1);
  await recorder.isRestored();
  assertEquals(third.subscriptions[0]!.calls, []);
  await subscription.close();
});

Deno.test("MovingSubscription is one story: lost where it was and lost by going is one loss", async () => {
  const stage = new Stage();
  const { brokers: [first, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  const old = first.subscriptions[0]!.subscriber;
  old.lost("the connection broke");
  stage.moveTo(second);
  await recorder.isRestored();
  assertEquals([recorder.changes, recorder.reasons], [["lost", "restored"], ["the connection broke"]]);
  const now = second.subscriptions[0]!.subscriber;
  now.restored();
  now.lost("again");
  now.lost("and again");
  now.restored();
  assertEquals(recorder.changes, ["lost", "restored", "lost", "restored"]);
  await subscription.close();
});

Deno.test("MovingSubscription that is closed on its way leaves nothing, and says nothing more", async () => {
  // While it leaves, while it comes, while it waits to try again, and while it comes all the same.
  for (const moment of ["leaves", "comes", "waits", "came"] as const) {
    const stage = new Stage();
    const { brokers: [first, second], recorder, subscription } = stage;
    first.closesSlowly = moment === "leaves";
    second.isSlow = moment === "comes" || moment === "came";
    await subscription.open(undefined);
    if (moment === "waits") {
      for (let i = 0; i < 100; i++) second.refusals.push(new BrokerUnavailableError("not yet"));
    }
    stage.moveTo(second);
    if (moment !== "leaves") {
      await second.bell.until(() => second.subscribes > 0, "the second one to be asked");
    }
    if (moment === "came") second.grant();
    const closed = subscription.close();
    if (moment === "leaves") first.subscriptions[0]!.isGone();
    await closed;
    assertEquals([stage.isMoving, stage.held, recorder.changes], [false, [0, 0, 0], ["lost"]], moment);
    for (const { subscriber } of [...first.subscriptions, ...second.subscriptions]) {
      subscriber.message("late", 4);
      subscriber.restored();
      subscriber.lost("late");
    }
    const asked = second.subscribes;
    subscription.move();
    await subscription.close();
    assertEquals([recorder.payloads, recorder.changes, second.subscribes], [[], ["lost"], asked], moment);
    assertEquals(stage.closes, 1, moment);
  }
});

Deno.test("MovingSubscription that is closed where it is says nothing more", async () => {
  const stage = new Stage();
  const { recorder, subscription } = stage;
  await subscription.open(undefined);
  const { subscriber } = stage.brokers[0].subscriptions[0]!;
  await subscription.close();
  subscriber.message("late", 4);
  subscriber.lost("late");
  subscriber.restored();
  stage.moveTo(stage.brokers[1]);
  assertEquals([recorder.payloads, recorder.changes, stage.held, stage.closes], [[], [], [0, 0, 0], 1]);
});

Deno.test("MovingSubscription that is closed waits for no time to try again", async () => {
  using clock = new TurnedClock();
  const stage = new Stage();
  const { brokers: [, second], subscription } = stage;
  await subscription.open(undefined);
  second.refusals.push(new BrokerUnavailableError("not yet"));
  stage.moveTo(second);
  await second.bell.until(() => second.subscribes === 1, "the second one to be asked");
  for (let turns = 0; turns < 10; turns++) await null;
  assertEquals(clock.timers, 1);
  await subscription.close(); // the clock stands still
  assertEquals([clock.timers, second.subscribes], [0, 1]);
});

Deno.test("MovingSubscription that was lost again before it was restored is not said to be restored", async () => {
  const stage = new Stage();
  const { brokers: [, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  const { subscribe } = second;
  // The connection breaks in the turn in which it was confirmed.
  second.subscribe = async (channel, subscriber, options) => {
    const granted = await subscribe.call(second, channel, subscriber, options);
    subscriber.lost("it broke at once");
    return granted;
  };
  stage.moveTo(second);
  await second.has(1);
  await settle();
  assertEquals(recorder.changes, ["lost"]);
  second.subscriptions[0]!.subscriber.restored();
  assertEquals(recorder.changes, ["lost", "restored"]);
  await subscription.close();
});

Deno.test("MovingSubscription goes where it has to, whatever its subscriber throws, and the log has that", async () => {
  const log = memoryLog();
  const stage = new Stage(log, (what) => {
    throw new Error(what);
  });
  const { brokers: [, second], recorder, subscription } = stage;
  await subscription.open(undefined);
  stage.moveTo(second);
  await recorder.isRestored();
  await settle();
  second.subscriptions[0]!.subscriber.message("1", 1);
  assertEquals([stage.isMoving, stage.held, second.subscribes], [false, [0, 1, 0], 1]);
  assertEquals([recorder.changes, recorder.payloads], [["lost", "restored"], ["1"]]);
  assertEquals(log.records.map(({ event, fields }) => [event, fields.channel, fields.reason]), [
    ["subscriber failed", "alice", "lost"],
    ["subscriber failed", "alice", "restored"],
    ["subscriber failed", "alice", "message"],
  ]);
  await subscription.close();
});
