/** Much work of a few callers: in each line in order, and between the lines in turns. */
import { assertEquals } from "@std/assert";
import { Turns } from "../../src/async/turns.ts";

/** Work that ends when it is told to. */
class Works {
  readonly begun: string[] = [];
  readonly #ends: ((error?: Error) => void)[] = [];

  readonly work = (name: string) => () => {
    this.begun.push(name);
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#ends.push((error) => error ? reject(error) : resolve(name));
    return promise;
  };

  /** Ends the oldest; resolves when what that made room for has begun. */
  async end(error?: Error): Promise<void> {
    this.#ends.shift()!(error);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
}

Deno.test("What comes while there is room begins at once, and lines take turns for the rest", async () => {
  const turns = new Turns();
  const [one, other] = [turns.line(), turns.line()];
  const works = new Works();
  const all = [one.run(works.work("first"), 1, 150)];
  for (const name of ["a1", "a2", "a3"]) all.push(one.run(works.work(name), 1, 100));
  for (const name of ["b1", "b2"]) all.push(other.run(works.work(name), 1, 100));
  assertEquals(works.begun, ["first"]);
  await works.end();
  assertEquals(works.begun, ["first", "a1", "b1"]);
  await works.end();
  await works.end();
  assertEquals(works.begun, ["first", "a1", "b1", "a2", "b2"]);
  await works.end();
  assertEquals(works.begun.at(-1), "a3");
  await works.end();
  await works.end();
  assertEquals(await Promise.all(all), ["first", "a1", "a2", "a3", "b1", "b2"]);
});

Deno.test("What is larger than all the room goes alone, and what fails makes room as well", async () => {
  const turns = new Turns();
  const line = turns.line();
  const works = new Works();
  const failing = line.run(works.work("large"), 10_000_000).catch((error: Error) => error.message);
  const next = line.run(works.work("next"), 10_000_000);
  assertEquals(works.begun, ["large"]);
  await works.end(new Error("gone"));
  assertEquals([await failing, works.begun], ["gone", ["large", "next"]]);
  await works.end();
  assertEquals(await next, "next");
});
