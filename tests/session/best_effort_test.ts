/** What comes once or never, to a client that takes what the test says. */
import { assertEquals } from "@std/assert";
import type { Subscription } from "../../src/broker/broker.ts";
import { BestEffort } from "../../src/session/best_effort.ts";
import type { Output } from "../../src/session/output.ts";

/** Ten bytes may wait. A subscription that can be paused says so, and what its owner is told is written down. */
class Stage {
  readonly told: string[] = [];
  readonly sent: string[] = [];
  hasRoom = true;
  readonly bestEffort: BestEffort;

  constructor() {
    const output = {
      pass: (payload: string) => this.hasRoom && this.sent.push(payload) > 0,
      miss: (count: number) => this.told.push(`missed ${count}`),
    } as unknown as Output;
    const owner = {
      onFull: () => void this.told.push("full"),
      close: ({ code }: { code: number }) => {
        this.told.push(`close ${code}`);
        this.bestEffort.stop();
      },
    };
    this.bestEffort = new BestEffort(owner, output, 10);
  }

  subscription(isPausable: boolean): Subscription {
    return {
      channel: "alice",
      close: () => Promise.resolve(),
      ...(isPausable && {
        pause: () => void this.told.push("pause"),
        resume: () => void this.told.push("resume"),
      }),
    };
  }

  /** So many bytes each. */
  come(bytes: number, ...names: string[]): void {
    for (const name of names) this.bestEffort.message(name, bytes, 0);
  }
}

Deno.test("What comes before the start waits, in order; one message beyond the bytes that may is one too many", () => {
  const stage = new Stage();
  stage.come(5, "a", "b");
  assertEquals(stage.sent, []);
  stage.bestEffort.start(stage.subscription(false));
  stage.come(5, "c");
  assertEquals([stage.sent, stage.told], [["a", "b", "c"], []]);

  const much = new Stage();
  much.come(11, "a");
  assertEquals(much.told, [], "a single one may be larger");
  much.come(0, "b");
  assertEquals(much.told, ["close 4508"]);
  much.bestEffort.start(much.subscription(true));
  assertEquals([much.sent, much.told], [[], ["close 4508"]]);
});

Deno.test("A client that takes no more pauses its subscription, and gets what waited when it takes more again", () => {
  const stage = new Stage();
  const { bestEffort } = stage;
  bestEffort.start(stage.subscription(true));
  stage.told.length = 0;
  stage.hasRoom = false;
  stage.come(5, "a", "b");
  assertEquals([stage.told, bestEffort.isPaused], [["pause", "full"], true]);
  assertEquals([bestEffort.tick(), bestEffort.tick()], [1, 2]);
  bestEffort.resume();
  assertEquals([stage.told, bestEffort.isPaused], [["pause", "full", "pause", "full"], true]);
  stage.hasRoom = true;
  bestEffort.resume();
  assertEquals([stage.sent, stage.told.slice(4), bestEffort.isPaused], [["a", "b"], ["resume"], false]);
  assertEquals(bestEffort.tick(), 0);
  bestEffort.resume();
  assertEquals(stage.told.length, 5, "nothing was paused");
});

Deno.test("A client that takes no more is closed where nothing can be paused; where a replay needs the subscription it misses one", () => {
  const unpausable = new Stage();
  unpausable.bestEffort.start(unpausable.subscription(false));
  const replayed = new Stage();
  replayed.bestEffort.start(undefined);
  for (const stage of [unpausable, replayed]) {
    stage.hasRoom = false;
    stage.come(1, "a");
  }
  assertEquals([unpausable.told, replayed.told], [["close 4508"], ["missed 1"]]);
});

Deno.test("Numbers that a raw client did not hear count as missed, from the first that it heard on", () => {
  const stage = new Stage();
  stage.bestEffort.start(undefined);
  for (const seq of [7, 8, 0, 9, 12, 1, 2, 5]) stage.bestEffort.message("m", 1, seq);
  assertEquals([stage.told, stage.sent.length], [["missed 2", "missed 2"], 8]);
});
