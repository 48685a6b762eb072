/** The requests of one connection in orders of events that real sockets meet only by chance. */
import { assertEquals } from "@std/assert";
import type { ReadRequest, ReplyFrame } from "../../src/protocol/frames.ts";
import { type Answer, MAX_UNDER_WAY, Requests } from "../../src/requests/requests.ts";
import { RequestLine } from "../../src/session/request_line.ts";
import { bareMetrics } from "../../testkit/bare_metrics.ts";
import { StandingClock } from "../../testkit/standing_clock.ts";

/** A backend that answers when the test says so. */
class Desk {
  readonly asked: { id: string; signal: AbortSignal; answer(answer: Answer): void }[] = [];
  readonly metrics = bareMetrics();
  readonly requests = new Requests({
    respond: ({ id }, signal) =>
      new Promise((resolve) => this.asked.push({ id, signal, answer: (answer) => resolve(answer) })),
  }, this.metrics);

  get ids(): string[] {
    return this.asked.map(({ id }) => id);
  }
}

class Owner {
  readonly id = "c";
  readonly username = "alice";
  readonly replies: ReplyFrame[] = [];
  readonly closes: number[] = [];
  takesMore = true;
  fulls = 0;
  readonly line: RequestLine;

  constructor(requests: Requests) {
    this.line = new RequestLine(this, requests);
  }

  take(id: string, timeout_ms?: number): void {
    const request: ReadRequest = { t: "req", id, op: "o", json: undefined };
    this.line.take(timeout_ms === undefined ? request : { ...request, timeout_ms }, "{}");
  }

  onFull(): void {
    this.fulls++;
  }

  reply(frame: string): void {
    this.replies.push(JSON.parse(frame));
  }

  close({ code }: { code: number }): void {
    this.closes.push(code);
    this.line.stop();
  }
}

const DONE: Answer = { outcome: "answered", json: undefined };

/** The next turn of the event loop: by then every promise that could go on has. */
function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

Deno.test("A client that takes no answers is asked nothing more for, until it does", async () => {
  const desk = new Desk();
  const owner = new Owner(desk.requests);
  for (const id of ["a", "b", "c"]) owner.take(id);
  owner.takesMore = false;
  desk.asked[0]!.answer(DONE);
  await turn();
  assertEquals([desk.ids, owner.fulls, owner.line.isPaused], [["a"], 1, true]);
  owner.take("d");
  assertEquals([desk.ids, owner.fulls], [["a"], 1]);
  owner.takesMore = true;
  owner.line.resume();
  assertEquals([desk.ids, owner.line.isPaused], [["a", "b"], false]);
});

Deno.test("What nobody waits for any more is not begun when its turn comes", async () => {
  using clock = new StandingClock();
  const desk = new Desk();
  const owner = new Owner(desk.requests);
  owner.take("a");
  owner.take("b", 1_000);
  owner.take("c", 1_001);
  clock.pass(1_000);
  desk.asked[0]!.answer(DONE);
  await turn();
  assertEquals(desk.ids, ["a", "c"]);
  const { id, code, outcome } = owner.replies[1]!;
  assertEquals([id, code, outcome], ["b", "timeout", undefined], "it is known not to have been done");
});

Deno.test("A connection that ends breaks off what is under way, and begins nothing more", async () => {
  const desk = new Desk();
  const owner = new Owner(desk.requests);
  for (const id of ["a", "b"]) owner.take(id);
  owner.line.stop();
  const [only] = desk.asked;
  assertEquals(only!.signal.aborted, true);
  only!.answer(DONE);
  await turn();
  assertEquals([desk.ids, owner.replies, desk.metrics.requests.gone], [["a"], [], 1]);
  const closing = new Owner(desk.requests);
  for (const id of ["c", "d"]) closing.take(id);
  desk.asked[1]!.answer({
    ...{ outcome: "refused", code: "no", err: "No" },
    close: { code: 4403, reason: "No" },
  });
  await turn();
  assertEquals([closing.closes, closing.replies.map(({ id }) => id), desk.ids], [[4403], ["c"], [
    "a",
    "c",
  ]]);
});

Deno.test("A process has 200 under way, and the place of one that ends is free again", async () => {
  const desk = new Desk();
  const owners = Array.from({ length: MAX_UNDER_WAY + 2 }, () => new Owner(desk.requests));
  owners.forEach((owner, i) => owner.take(`${i}`));
  await turn();
  assertEquals(desk.asked.length, MAX_UNDER_WAY);
  assertEquals(owners.slice(MAX_UNDER_WAY).map(({ replies }) => replies[0]?.code), ["busy", "busy"]);
  owners[0]!.line.stop();
  desk.asked[0]!.answer(DONE);
  desk.asked[1]!.answer(DONE);
  await turn();
  for (const id of ["x", "y", "z"]) new Owner(desk.requests).take(id);
  await turn();
  assertEquals(desk.ids.slice(MAX_UNDER_WAY), ["x", "y"]);
});
