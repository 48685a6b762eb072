/** One of several processes at its place: what is done when it hangs. */
import { assertEquals } from "@std/assert";
import type { Child, Ending } from "../../src/processes/child.ts";
import { Post } from "../../src/processes/post.ts";
import { until } from "../../testkit/deadline.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

/** A process that is none: it listens, and answers as it is told. */
class StubChild {
  readonly place;
  readonly #end = Promise.withResolvers<Ending>();
  readonly ended = this.#end.promise;
  /** Whether it does, each time it is asked; from then on it does. */
  readonly #hangs: boolean[];
  asked = 0;
  hasEnded = false;

  constructor(readonly pid: number, hangs: readonly boolean[]) {
    this.place = { number: 1, of: 1, port: 1, opsPath: "" };
    this.#hangs = [...hangs];
  }

  isUp(): Promise<boolean> {
    return Promise.resolve(true);
  }

  hangs(): Promise<boolean> {
    this.asked++;
    return Promise.resolve(this.#hangs.shift() ?? false);
  }

  kill(): void {
    this.hasEnded = true;
    this.#end.resolve({ code: 137, signal: "SIGKILL" });
  }
}

Deno.test("A process that hangs is killed and another takes its place; one that is slow once is left alone", async () => {
  const children = [
    new StubChild(1, [false, true, false, true, true]),
    new StubChild(2, [false, true]),
  ];
  const ending = Promise.withResolvers<void>();
  let isEnding = false;
  let started = 0;
  const log = memoryLog();
  const post = new Post({
    log,
    ending: ending.promise,
    isEnding: () => isEnding,
    spawn: () => children[started++] as unknown as Child,
    silentMs: 1,
  });
  post.start();
  await until(() => children[1]!.asked > 5, "the second process to be asked", undefined, () => log.records);
  isEnding = true;
  ending.resolve();
  assertEquals(children.map(({ hasEnded }) => hasEnded), [true, false]);
  assertEquals(children[0]!.asked, 5);
  assertEquals(log.records.map(({ event, fields }) => [event, fields.pid]), [
    ["process killed", 1],
    ["process ended: it is started again", 1],
  ]);
});
