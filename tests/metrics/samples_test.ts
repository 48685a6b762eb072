/** The last 15 minutes of a node: what is kept of them, and how long the sends in between took. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { Durations } from "../../src/metrics/durations.ts";
import { type Sample, Samples } from "../../src/metrics/samples.ts";
import { bareMetrics } from "../../testkit/bare_metrics.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";

Deno.test("Samples of 15 minutes are kept, and last comes the present moment, which is not", () => {
  const numbers = bareMetrics({ redisReconnects: () => 2, lagging: () => 3 });
  using samples = new Samples(numbers);
  assertEquals(samples.all().map(({ delivered }) => delivered), [0]);
  for (let n = 1; n <= 200; n++) {
    numbers.delivered = n;
    samples.take();
  }
  numbers.delivered = 1_000;
  for (let again = 0; again < 2; again++) {
    const delivered = samples.all().map(({ delivered }) => delivered);
    assertEquals([delivered.length, delivered[0], ...delivered.slice(-2)], [181, 21, 200, 1_000]);
  }
});

Deno.test("A sample has the numbers of /metrics", () => {
  const numbers = bareMetrics({ redisReconnects: () => 2, lagging: () => 3 });
  using samples = new Samples(numbers);
  numbers.onOpen("v1");
  numbers.onOpen("sse");
  numbers.sends.reached = 5;
  numbers.gaps.trimmed = 1;
  numbers.onWebhook("users.changed", "delivered");
  numbers.onWebhook("message.unacked", "delivered");
  numbers.onWebhook("message.unacked", "failed");
  const { connections, sends, gaps, webhooks, lagging, redis_reconnects } = samples.all().at(-1)!;
  const text = parseMetrics(numbers.text());
  const of = (series: string) => text.get(`userwire_${series}`);
  for (const mode of ["raw", "v1", "sse"] as const) {
    assertEquals(connections[mode], of(`connections{mode="${mode}"}`));
  }
  assertEquals([sends.reached, sends.stored], [5, of('sends_total{outcome="stored"}')]);
  assertEquals([gaps.trimmed, lagging, redis_reconnects], [1, of("connections_lagging"), 2]);
  assertEquals(webhooks, { delivered: 2, failed: 1 });
});

Deno.test("Samples are told to who listens, until they don't, and share no numbers", () => {
  const numbers = bareMetrics({ redisReconnects: () => 2, lagging: () => 3 });
  using samples = new Samples(numbers);
  const heard: Sample[] = [];
  const stop = samples.onSample((sample) => heard.push(sample));
  samples.take();
  numbers.onOpen("raw");
  samples.take();
  stop();
  samples.take();
  assertEquals(heard.map(({ connections }) => connections.raw), [0, 1]);
  assert(heard[1]!.at >= heard[0]!.at);
});

Deno.test("A sample says how long sends took since the one before, and nothing where there were none", () => {
  const numbers = bareMetrics({ redisReconnects: () => 2, lagging: () => 3 });
  using samples = new Samples(numbers);
  for (let i = 0; i < 99; i++) numbers.onAnswer(0.0008);
  numbers.onAnswer(2);
  samples.take();
  samples.take();
  for (let i = 0; i < 10; i++) numbers.onAnswer(0.2);
  const [slow, none, now] = samples.all().map(({ send_ms }) => send_ms);
  // Within the bucket from 0.5 to 1 ms a straight line is drawn.
  assertAlmostEquals(slow!.p50, 0.5 + 0.5 * 50 / 99, 0.001);
  assertEquals(slow!.p99, 1);
  assertEquals(none, undefined);
  assertAlmostEquals(now!.p50, 175, 0.001);
});

Deno.test("A quantile lies in its bucket, above the last bound it is that bound, and of nothing there is none", () => {
  const durations = new Durations([1, 2, 4]);
  assertEquals(durations.quantile(0.5), undefined);
  durations.add(3);
  assertEquals([durations.quantile(0.5), durations.quantile(1)], [3, 4]);
  const since = durations.look();
  assertEquals(durations.quantile(0.5, since), undefined);
  durations.add(9);
  assertEquals(durations.quantile(0.99, since), 4);
  durations.add(0.5);
  assertEquals(durations.quantile(0.5, since), 1);
});
