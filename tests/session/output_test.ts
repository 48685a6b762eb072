/** The last step of a delivery, to a transport that takes what the test says. */
import { assertEquals } from "@std/assert";
import { formatEnvelope, withSeq } from "../../src/protocol/envelope.ts";
import type { SessionContext } from "../../src/session/context.ts";
import { Output } from "../../src/session/output.ts";
import type { Transport } from "../../src/session/transport.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

class Stage {
  readonly sent: unknown[] = [];
  readonly confirmed: string[] = [];
  readonly log = memoryLog();
  readonly metrics = { replayed: 0, delivered: 0, deliveredBytes: 0, missed: 0 };
  hasRoom = true;
  fulls = 0;
  failure: Error | undefined;
  readonly output: Output;

  constructor({ isFramed = true } = {}) {
    const transport = { isFramed, write: (frame: unknown) => this.hasRoom && this.sent.push(frame) > 0 };
    const confirm = (receipt: string) => {
      this.confirmed.push(receipt);
      return this.failure ? Promise.reject(this.failure) : Promise.resolve();
    };
    const context = { log: this.log, metrics: this.metrics, receipts: { confirm, handed: confirm } };
    const owner = { id: "1", username: "alice", onFull: () => void this.fulls++ };
    this.output = new Output(
      owner,
      transport as unknown as Transport,
      context as unknown as SessionContext,
    );
  }
}

function envelope(seq: number, receipt?: string): string {
  const options = { id: "a", ts: 1, receipt };
  return withSeq(formatEnvelope({ kind: "json", text: "é" }, options), seq, "abcdefgh");
}

Deno.test("What is delivered counts, with the bytes of its envelope; what the client does not take does not", () => {
  const { output, metrics, sent } = new Stage();
  assertEquals(output.deliver(envelope(1), 200), true);
  assertEquals(metrics, { replayed: 0, delivered: 1, deliveredBytes: 200, missed: 0 });
  const bytes = new TextEncoder().encode(envelope(2)).length;
  output.deliver(envelope(2), undefined);
  assertEquals(metrics, { replayed: 1, delivered: 2, deliveredBytes: 200 + bytes, missed: 0 });
  assertEquals([output.messages, output.bytes, sent.length], [2, 200 + bytes, 2]);

  const full = new Stage();
  full.hasRoom = false;
  assertEquals([full.output.deliver(envelope(1, "r"), undefined), full.fulls], [false, 1]);
  assertEquals([full.output.pass("x", 1), full.fulls], [false, 1]);
  assertEquals([full.metrics.delivered, full.metrics.replayed, full.output.messages], [0, 0, 0]);
  full.output.acknowledge(1);
  assertEquals(full.confirmed, []);
});

Deno.test("A receipt is owed for the last thousand messages that are not acknowledged, and none after the end", () => {
  const { output, confirmed } = new Stage();
  for (let seq = 1; seq <= 1_001; seq++) output.deliver(envelope(seq, `r${seq}`), 1);
  const counts = [1, 2, 2, 1_000, 1_000].map((seq) => (output.acknowledge(seq), confirmed.length));
  assertEquals([counts, confirmed[0]], [[0, 1, 1, 999, 999], "r2"]);
  output.stop();
  output.acknowledge(1_001);
  assertEquals(confirmed.length, 999);
});

Deno.test("A receipt that can't be passed on is a line in the log", async () => {
  const failing = new Stage();
  failing.failure = new Error("Redis is away");
  failing.output.deliver(envelope(1, "r"), 1);
  failing.output.onHanded("r");
  failing.output.acknowledge(1);
  await new Promise((resolve) => setTimeout(resolve));
  const warnings = failing.log.records.filter(({ level }) => level === "warn");
  assertEquals(warnings.map(({ level, event, fields }) => [level, event, fields.reason]), [
    ["warn", "number of sockets not reported to the sender", "Redis is away"],
    ["warn", "receipt not confirmed", "Redis is away"],
  ]);
});

Deno.test("A client is silent when so many seconds brought no message, each time anew", () => {
  const { output } = new Stage();
  assertEquals([1, 2, 3, 4].map(() => output.wasSilent(2)), [false, true, false, true]);
  output.wasSilent(2);
  output.pass("x", 1);
  assertEquals([output.wasSilent(2), output.wasSilent(2)], [false, true]);
});
