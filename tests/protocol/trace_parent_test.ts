/** Trace parents: which are read, and where they stand in an envelope. */
import { assertEquals } from "@std/assert";
import {
  broadcastFrameOf,
  formatEnvelope,
  frameOf,
  idOf,
  payloadOf,
  replayFrameOf,
  seqFields,
  seqOf,
  tagIn,
  timesIn,
  traceParentIn,
} from "../../src/protocol/envelope.ts";
import { readTraceParent, sampledParent } from "../../src/protocol/trace_parent.ts";
import { SAMPLED, TRACE_ID, TRACE_PARENTS, UNSAMPLED } from "../../testkit/trace_parents.ts";

Deno.test("A trace parent is read as W3C says; what is none is none, and no error", () => {
  for (const [given, read] of TRACE_PARENTS) assertEquals(readTraceParent(given), read, given.slice(0, 99));
});

Deno.test("Only a trace that is recorded is a parent of spans", () => {
  assertEquals(sampledParent(SAMPLED), { traceId: TRACE_ID, spanId: "00f067aa0ba902b7", traceFlags: 1 });
  assertEquals(sampledParent(UNSAMPLED), undefined);
  assertEquals(sampledParent(SAMPLED.replace(/01$/, "03"))?.traceFlags, 3);
  assertEquals(sampledParent(SAMPLED.replace(/01$/, "fe")), undefined);
});

const payload = { kind: "text", text: `"ts":1,"tp":"${UNSAMPLED}","data":` } as const;

function envelope(options: Partial<Parameters<typeof formatEnvelope>[1]>): string {
  const { head, tail } = formatEnvelope(payload, { id: "m1", ts: 7, ...options });
  return head + seqFields(3, "abcd1234") + tail;
}

Deno.test("It stands in the envelope of every kind of send, and nothing that a sender writes is taken for it", () => {
  const group = `"ts":1,"tp":"${UNSAMPLED}"`;
  const kinds = [{}, { group }, { ttlMs: 5 }, { receipt: "a.1!t" }, {
    receipt: "r".repeat(200),
    ttlMs: 9,
    group,
  }];
  for (const options of kinds) {
    const traced = envelope({ ...options, id: "i".repeat(64), ts: Date.now(), traceparent: SAMPLED });
    assertEquals(traceParentIn(traced), SAMPLED);
    assertEquals(JSON.parse(frameOf(traced)).tp, SAMPLED);
    assertEquals(JSON.parse(replayFrameOf(traced)).tp, SAMPLED);
    assertEquals(JSON.parse(broadcastFrameOf(frameOf(traced))).tp, SAMPLED);
    assertEquals([seqOf(traced), tagIn(traced), idOf(traced)], [3, "abcd1234", "i".repeat(64)]);
    assertEquals(timesIn(traced).ttlMs, "ttlMs" in options ? options.ttlMs : undefined);
    assertEquals(payloadOf(traced), payload.text);
    assertEquals(traceParentIn(envelope(options)), undefined);
  }
});

Deno.test("Without one an envelope has not one byte more", () => {
  const without = '\u0001uw1t{"t":"m","seq":3,"tag":"abcd1234","id":"m1","ts":7,"g":"team","data":"x"}';
  for (const traceparent of [undefined, "", "none", `${SAMPLED}"`]) {
    const { head, tail } = formatEnvelope({ kind: "text", text: "x" }, {
      id: "m1",
      ts: 7,
      group: "team",
      traceparent,
    });
    assertEquals(head + seqFields(3, "abcd1234") + tail, without);
  }
});
