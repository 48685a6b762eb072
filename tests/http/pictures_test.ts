/** What the console draws of samples: rates, holes, and what never falls together. */
import { assert, assertEquals } from "@std/assert";
import { joined, picturesOf } from "../../src/web/pictures.js";

function sample(at: number, delivered: number, more: object = {}) {
  return {
    ...{ at, delivered, connections: { raw: 0, v1: 2, sse: 0 }, lagging: 0, sends: { reached: delivered } },
    ...{
      replayed: 0,
      gaps: { trimmed: 0, epoch: 0 },
      missed: 0,
      broker_available: true,
      redis_reconnects: 0,
    },
    ...{ interruptions: 0, webhooks: {}, webhook_oldest_s: 0, events_dropped: 0 },
    ...more,
  };
}

const ABOUT = { everyMs: 5_000, webhooks: false, isRedis: true };

function lineOf(samples: ReturnType<typeof sample>[], id: string, name: string) {
  const picture = picturesOf(samples, ABOUT).find(([one]) => one === id)![1];
  return picture.lines.find((line) => line.name === name)!;
}

Deno.test("A counter is drawn as what came each second, and shown with its sum", () => {
  const samples = [sample(0, 10), sample(5_000, 60), sample(10_000, 60), sample(12_000, 1_064)];
  const { values, total, show } = lineOf(samples, "chart-deliveries", "Messages written");
  assertEquals([values, total], [[undefined, 10, 0, 502], "1,064"]);
  assertEquals([show(0.123456), show(1_234.5), show(0)], ["0.123", "1,230", "0"]);
});

Deno.test("No line is drawn over a hole, a start anew, or a clock that was set back", () => {
  const samples = [
    sample(0, 10),
    sample(20_000, 60),
    sample(25_000, 5),
    sample(24_000, 6),
    sample(29_000, 11),
  ];
  const { values } = lineOf(samples, "chart-deliveries", "Messages written");
  assertEquals(values, [undefined, undefined, undefined, undefined, 1]);
});

Deno.test("What is drawn depends on what there is: Redis, webhooks, sends in that time", () => {
  const ids = (about: typeof ABOUT) => picturesOf([sample(0, 0)], about).map(([id]) => id);
  assert(ids(ABOUT).includes("chart-redis") && !ids(ABOUT).includes("chart-webhooks"));
  assert(!ids({ ...ABOUT, isRedis: false }).includes("chart-redis"));
  assert(ids({ ...ABOUT, webhooks: true }).includes("chart-webhooks"));
  const away = lineOf([sample(0, 0, { broker_available: false })], "chart-redis", "Away");
  assertEquals([away.values, away.show(1)], [[1], "yes"]);
  const samples = [sample(0, 0), sample(5_000, 1, { send_ms: { p50: 0.5, p99: 2 } })];
  assertEquals(lineOf(samples, "chart-duration", "p99").values, [undefined, 2]);
  // Before anything has come there is nothing to show, and nothing fails.
  assertEquals(lineOf([], "chart-gaps", "Trimmed").total, "–");
});

Deno.test("Samples that come are joined to those that are known, for as long as they are shown", () => {
  const known = [sample(0, 0), sample(5_000, 1), sample(10_000, 2)];
  assertEquals(joined(known, [sample(15_000, 3)], 11_000).map(({ at }) => at), [5_000, 10_000, 15_000]);
  // A new stream has all of them.
  assertEquals(joined(known, [sample(7, 0), sample(8, 0)], 11_000).map(({ at }) => at), [7, 8]);
});
