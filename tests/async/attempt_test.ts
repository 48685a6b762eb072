/** What can be given up on the way to a subscription, and that nothing is left behind then. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { Attempt } from "../../src/async/attempt.ts";
import { Semaphore, Semaphores } from "../../src/async/semaphore.ts";
import { Deadlines } from "../../src/async/deadlines.ts";
import { withDeadline } from "../../testkit/deadline.ts";

class TooLate extends Error {}
class Unwanted extends Error {}

/** An attempt that a controller or its deadline gives up. */
function begin(limitMs = 60_000): { attempt: Attempt; abort(): void; end(): void } {
  const deadlines = new Deadlines(limitMs);
  const controller = new AbortController();
  const attempt = new Attempt(deadlines, { late: () => new TooLate(), signal: controller.signal });
  return {
    attempt,
    abort: () => controller.abort(new Unwanted()),
    end() {
      attempt.end();
      deadlines.close();
    },
  };
}

Deno.test("Attempt.step passes on what its promise brings, also an error", async () => {
  const { attempt, end } = begin();
  assertEquals(await attempt.step(Promise.resolve(7)), 7);
  await assertRejects(() => attempt.step(Promise.reject(new RangeError())), RangeError);
  attempt.throwIfGivenUp();
  end();
});

Deno.test("Attempt.step ends when its time is over", async () => {
  const { attempt, end } = begin(0);
  await assertRejects(() => withDeadline(attempt.step(new Promise(() => {})), 10_000, "the limit"), TooLate);
  assertThrows(() => attempt.throwIfGivenUp(), TooLate);
  end();
});

Deno.test("Attempt.step ends when nobody wants it, and what comes after that is let go of", async () => {
  const { attempt, abort, end } = begin();
  const coming = Promise.withResolvers<string>();
  const late: string[] = [];
  const step = attempt.step(coming.promise, (value) => late.push(value));
  abort();
  await assertRejects(() => step, Unwanted);
  coming.resolve("conn");
  await coming.promise;
  assertEquals(late, ["conn"]);
  await assertRejects(() => attempt.step(Promise.resolve("next"), (value) => late.push(value)), Unwanted);
  assertEquals(late, ["conn", "next"]);
  end();
});

Deno.test("Attempt does not begin for a signal that has fired, and hears none after its end", () => {
  const deadlines = new Deadlines(60_000);
  const late = () => new TooLate();
  assertThrows(() => new Attempt(deadlines, { late, signal: AbortSignal.abort(new Unwanted()) }), Unwanted);
  deadlines.close();
  const { attempt, abort, end } = begin();
  end();
  abort();
  attempt.throwIfGivenUp();
});

Deno.test("Semaphore passes a place on in line, also one that came too late for whoever waited", async () => {
  const semaphore = new Semaphore(1);
  const first = Promise.withResolvers<void>();
  const [one, two, three] = [begin(), begin(), begin()];
  const done: string[] = [];
  const run = ({ attempt }: { attempt: Attempt }, name: string, work = Promise.resolve()) =>
    semaphore.run(async () => {
      await work;
      done.push(name);
    }, attempt);
  const running = run(one, "one", first.promise);
  const refused = assertRejects(() => run(two, "two"), Unwanted);
  const last = run(three, "three");
  first.resolve();
  await first.promise;
  two.abort(); // while the place may already be on its way to it
  await Promise.all([running, refused, last]);
  assertEquals(done, ["one", "three"]);
  await run(three, "again");
  assertEquals(done, ["one", "three", "again"]);
  for (const { end } of [one, two, three]) end();
});

Deno.test("Semaphores lets the work of one name wait for its own alone, also after some that failed", async () => {
  const semaphores = new Semaphores(1);
  const begun: string[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const run = (name: string, what: string) =>
    semaphores.run(name, () => {
      begun.push(what);
      return new Promise<void>((resolve, reject) => ends.push((error) => error ? reject(error) : resolve()));
    });
  const first = assertRejects(() => run("a", "a1"), Error, "gone");
  const others = [run("a", "a2"), run("b", "b1")];
  assertEquals(begun, ["a1", "b1"]);
  ends[0]!(new Error("gone"));
  await first;
  assertEquals(begun, ["a1", "b1", "a2"]);
  for (const end of ends) end();
  await Promise.all(others);
});
