/** Requests answered by a function in the process: what it may answer, throw, and leave undone. */
import { assertEquals } from "@std/assert";
import { RequestError } from "../../src/protocol/errors.ts";
import { FunctionResponder, type IncomingRequest, type OnRequest } from "../../src/requests/by_function.ts";
import type { Answer } from "../../src/requests/requests.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

const REQUEST = { id: "1", user: "alice", conn: "c", op: "o", json: '{"a":[1]}' };

/** What comes of it, and what is logged. */
async function ask(
  onRequest: OnRequest,
  { json = REQUEST.json, timeoutMs = 60_000, signal = new AbortController().signal }: {
    json?: string | undefined;
    timeoutMs?: number;
    signal?: AbortSignal;
  } = {},
): Promise<{ answer: Answer; logged: string[] }> {
  const log = memoryLog();
  using responder = new FunctionResponder({ onRequest, timeoutMs, node: "n", log });
  const answer = await responder.respond({ ...REQUEST, json }, signal);
  return { answer, logged: log.records.map(({ event, fields }) => `${event}: ${fields.reason}`) };
}

Deno.test("A function gets the request as it was made, and answers with anything that is JSON, or nothing", async () => {
  let got: Partial<IncomingRequest> = {};
  const { answer } = await ask((request) => (got = request, { done: true }));
  const { signal, ...rest } = got;
  assertEquals(rest, { id: "1", user: "alice", conn: "c", node: "n", op: "o", data: { a: [1] } });
  assertEquals([signal?.aborted, answer], [false, { outcome: "answered", json: '{"done":true}' }]);
  for (const value of [undefined, null, 0, "", [null]]) {
    const { answer } = await ask(() => Promise.resolve(value));
    assertEquals(answer, { outcome: "answered", json: JSON.stringify(value) });
  }
});

Deno.test("A function refuses by a RequestError; what else it throws is its own fault, and told to nobody", async () => {
  const refused = await ask(() => {
    throw new RequestError("Not yours", "not_yours", { retryMs: 5, close: 4403 });
  });
  assertEquals(refused, {
    answer: {
      outcome: "refused",
      code: "not_yours",
      err: "Not yours",
      retryMs: 5,
      isUncertain: false,
      close: { code: 4403, reason: "Not yours" },
    },
    logged: [],
  });
  for (
    const fault of [
      () => Promise.reject(new Error("secret")),
      () => {
        throw new Error("secret");
      },
    ]
  ) {
    const { answer, logged } = await ask(fault);
    assertEquals([answer.outcome, JSON.stringify(answer).includes("secret")], ["unavailable", false]);
    assertEquals(logged, ["onRequest failed: secret"]);
  }
  const { answer, logged } = await ask(() => 1n);
  assertEquals([answer.outcome, logged.length], ["unavailable", 1]);
  assertEquals((await ask(() => "x".repeat(65_536))).answer.outcome, "bad_answer");
});

Deno.test("A function that never ends is left after its time, or when the client has gone, and told so", async () => {
  let heard: AbortSignal | undefined;
  const endless: OnRequest = ({ signal }) => (heard = signal, new Promise(() => {}));
  const { answer } = await ask(endless, { timeoutMs: 1 });
  assertEquals([answer.outcome, heard!.aborted], ["timeout", true]);
  const gone = new AbortController();
  const asking = ask(endless, { signal: gone.signal });
  gone.abort();
  const { logged } = await asking;
  assertEquals([heard!.aborted, logged], [true, []]);
});
