/** The parts of a load by themselves: what counts, what reads marks and answers, and the verdict on the load itself. */
import { assertEquals, assertThrows } from "@std/assert";
import { type Figures, limitOf } from "../../src/load/figures.ts";
import { Histogram } from "../../src/load/histogram.ts";
import { headIn, refusalIn, sizeOf } from "../../src/load/http_answer.ts";
import { formatMarked, Mark } from "../../src/load/mark.ts";
import { Refusals } from "../../src/load/refusals.ts";
import { Present } from "../../src/load/sending.ts";
import { placeOf } from "../../src/load/stream.ts";
import { Tally } from "../../src/load/tally.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** A histogram of these, in milliseconds. */
function histogramOf(...timesMs: number[]): Histogram {
  const histogram = new Histogram();
  for (const ms of timesMs) histogram.add(ms);
  return histogram;
}

Deno.test("Histogram's quantiles are those of the sorted times, to a thousandth", () => {
  const times = Array.from({ length: 5_000 }, (_, i) => Math.exp(i * 1_237 % 5_000 / 5_000 * 18 - 4));
  const histogram = histogramOf(...times);
  times.sort((a, b) => a - b);
  for (const part of [0, 0.001, 0.5, 0.9, 0.99, 0.999, 1]) {
    const exact = times[Math.min(times.length - 1, Math.floor(times.length * part))]!;
    const off = Math.abs(histogram.quantileMs(part) - Math.min(exact, (2 ** 31 - 1) / 1_000));
    assertEquals(off <= exact / 1_000 + 0.001, true, `${part}: ${histogram.quantileMs(part)}, not ${exact}`);
  }
  assertEquals(histogram.maxMs, times.at(-1));
});

Deno.test("Histogram counts between limits, takes any time, and is empty after clear", () => {
  const histogram = histogramOf(-1, 0.5, 1, 1.5, 99, 101, 1e12);
  assertEquals(histogram.between([1, 100]), [2, 3, 2]);
  histogram.clear();
  assertEquals([histogram.count, histogram.maxMs, histogram.quantileMs(0.5)], [0, 0, 0]);
  assertEquals(histogram.between([1]), [0, 0]);
});

Deno.test("Tally tells what is lost from what was refused, and a refused message may still come", () => {
  const tally = new Tally(2);
  for (let i = 0; i < 4; i++) tally.send(0);
  tally.send(1);
  tally.deliver(0, 1, 1);
  tally.deliver(0, 4, 1);
  tally.refuse(0, 2);
  tally.refuse(0, 4); // no answer came, but the message did
  assertEquals([tally.outstanding, tally.outstandingOf(0), tally.outstandingOf(1)], [2, 1, 1]);
  tally.deliver(0, 2, 1);
  assertEquals([tally.outstanding, tally.outstandingOf(0), tally.faults.disordered], [2, 1, 1]);
  tally.deliver(0, 2, 1);
  tally.deliver(0, 9, 1); // which nobody has sent
  assertEquals(tally.faults, { lost: 2, duplicated: 1, disordered: 1, misdelivered: 1 });
});

Deno.test("Mark is read out of any frame, and out of nothing that others send", () => {
  const mark = new Mark();
  const payload = formatMarked(7, 12, { dueUs: 345_678, bytes: 64 });
  assertEquals(payload.length, 64);
  JSON.parse(payload);
  const frame = bytesOf(`xx{"t":"m","seq":1,"tp":"~1~2~3~","data":${payload}}`);
  assertEquals(mark.read(frame, 2, frame.length), true);
  assertEquals([mark.user, mark.sequence, mark.dueUs], [7, 12, 345_678]);
  for (const other of [`{"t":"b","data":"~ 5"}`, `{"t":"b","data":"~1~2"}`, "~", `:"~`, ""]) {
    assertEquals(mark.read(bytesOf(other), 0, other.length), false, other);
  }
});

Deno.test("Answers are read to their end, whatever tells it, and refusals by what they say", () => {
  const read = (text: string) => {
    const bytes = bytesOf(text);
    const head = headIn(bytes);
    return head && { status: head.status, isLast: head.isLast, size: sizeOf(head, bytes) };
  };
  const plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
  assertEquals(read(plain), { status: 200, isLast: false, size: plain.length });
  assertEquals(read(plain.slice(0, -1)), { status: 200, isLast: false, size: undefined });
  assertEquals(read(plain.slice(0, 20)), undefined);
  const chunked =
    "HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
  assertEquals(read(chunked), { status: 503, isLast: true, size: chunked.length });
  assertEquals(read(chunked.slice(0, -2))?.size, undefined);
  for (const other of ["SSH-2.0-OpenSSH", "HTTP/1.1 what\r\n\r\n"]) {
    assertThrows(() => headIn(bytesOf(other)), Error, "it does not speak HTTP/1.1");
  }
  const problem = `9\r\n{"code":"full","title":"t","detail":"All seats are taken"}\r\n0\r\n\r\n`;
  assertEquals(refusalIn(503, bytesOf(problem)), {
    status: 503,
    code: "full",
    reason: "All seats are taken",
  });
  assertEquals(refusalIn(502, bytesOf("<html>")), { status: 502, code: "", reason: "no reason given" });
});

Deno.test("Refusals are counted by reason, and no more reasons are kept than can be read", () => {
  const refusals = new Refusals();
  for (let n = 0; n < 100; n++) {
    refusals.add({ status: 503, code: "full", reason: n % 2 === 0 ? "no room" : `no room for ${n}` });
  }
  const { list } = refusals;
  assertEquals(list.length, 11);
  assertEquals(list[0], { count: 50, refusal: { status: 503, code: "full", reason: "no room" } });
  assertEquals(list.at(-1), {
    count: 41,
    refusal: { status: 503, code: "full", reason: "for further reasons" },
  });
});

Deno.test("Present gives turns to those who are there, whoever leaves", () => {
  const present = new Present();
  for (let user = 0; user < 5; user++) present.add(user);
  for (const user of [4, 0, 0, 2]) present.remove(user);
  assertEquals([0, 1, 2, 3].map((turn) => present.at(turn)).sort(), [1, 1, 3, 3]);
  assertEquals(present.size, 2);
});

Deno.test("A place is where an address leads to", () => {
  assertEquals(placeOf(new URL("http://[::1]:8765/")), {
    ...{ hostname: "::1", port: 8765, isTls: false, host: "[::1]:8765", base: "" },
  });
  assertEquals(placeOf(new URL("https://push.example.com/a/b/")), {
    ...{ hostname: "push.example.com", port: 443, isTls: true, host: "push.example.com", base: "/a/b" },
  });
});

Deno.test("A load is its own limit when it is late or busy, and else the service is", () => {
  const base = {
    askedPerSecond: 100,
    unsent: 0,
    sent: 100,
    lag: histogramOf(1),
    latency: histogramOf(2),
    busy: 0.1,
  };
  const cases: [Partial<Figures>, "bench" | "service" | undefined][] = [
    [{}, undefined],
    [{ busy: 1 }, undefined], // all was done in time
    [{ lag: histogramOf(4), latency: histogramOf(5) }, undefined],
    [{ lag: histogramOf(6), latency: histogramOf(20) }, "bench"],
    [{ lag: histogramOf(6), latency: histogramOf(100) }, undefined],
    [{ unsent: 5 }, "service"],
    [{ unsent: 5, busy: 0.95 }, "bench"],
    [{ askedPerSecond: undefined }, "service"],
    [{ askedPerSecond: undefined, busy: 0.95 }, "bench"],
    [{ askedPerSecond: undefined, sent: 0 }, undefined],
  ];
  for (const [figures, limit] of cases) {
    assertEquals(limitOf({ ...base, ...figures }), limit, JSON.stringify(figures));
  }
});
