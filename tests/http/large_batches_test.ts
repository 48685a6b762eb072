/** Large batches of one API key take turns, each before its body is read: many at a time don't fill the memory. */
import { assertEquals } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { MAX_LARGE_BATCHES } from "../../src/http/api/batch.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { Service } from "../../testkit/service.ts";

const ITEM = JSON.stringify({ to: "alice", data: "x".repeat(60_000) });
const LARGE = `{"items":[${Array(5).fill(ITEM).join()}]}`;
const SMALL = `{"items":[${ITEM}]}`;

/** Holds up the reading of bodies, and counts those that have begun. */
class HeldBodies implements Disposable {
  readonly #original = Request.prototype.bytes;
  readonly #held: (() => void)[] = [];
  begun = 0;
  isHolding = true;

  constructor() {
    const { prototype } = Request;
    const [held, original] = [this.#held, this.#original];
    const begins = () => {
      this.begun++;
      return this.isHolding;
    };
    prototype.bytes = async function () {
      if (begins()) await new Promise<void>((resolve) => held.push(resolve));
      return await original.call(this);
    };
  }

  /** Lets the oldest go on. */
  release(): void {
    this.#held.shift()!();
  }

  [Symbol.dispose](): void {
    Request.prototype.bytes = this.#original;
    for (const release of this.#held) release();
  }
}

Deno.test("Large batches of one key take turns before they are read, and keep no other key waiting", async () => {
  const scopes = { scopes: ["send"], users: "*" } as const;
  const [one, other] = [newKey("one", scopes), newKey("other", scopes)];
  await using service = await Service.start({ ...CLOSED, USERWIRE_API_KEYS: `${one.line},${other.line}` });
  const post = async (key: string, body: string) => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${key}` };
    const answer = await service.fetch("/v1/messages", { method: "POST", headers, body });
    await answer.body?.cancel();
    return answer.status;
  };
  using bodies = new HeldBodies();
  const posted = Array.from({ length: MAX_LARGE_BATCHES }, () => post(one.key, LARGE));
  await until(
    () => bodies.begun === MAX_LARGE_BATCHES,
    "all of them to be read",
    undefined,
    () => bodies.begun,
  );
  posted.push(post(one.key, LARGE), post(one.key, LARGE));
  bodies.isHolding = false;
  assertEquals([await post(other.key, LARGE), await post(one.key, SMALL)], [200, 200]);
  assertEquals(bodies.begun, MAX_LARGE_BATCHES + 2, "the last two of the first key wait");
  bodies.release();
  await until(() => bodies.begun === MAX_LARGE_BATCHES + 4, "them to be read", undefined, () => bodies.begun);
  for (let i = 1; i < MAX_LARGE_BATCHES; i++) bodies.release();
  assertEquals(await Promise.all(posted), posted.map(() => 200));
});
