/**
 * A batch as lines: one result a line in order, whatever is wrong with some of them; for clients that read while they send, that
 * send all before they read, and that do neither.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Deadlines } from "../../src/async/deadlines.ts";
import type { Caller } from "../../src/auth/auth.ts";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { MemoryHistory } from "../../src/history/memory.ts";
import { LineCalls, MAX_LINES } from "../../src/http/api/batch_lines.ts";
import type { Api } from "../../src/http/api/call.ts";
import { silentLog } from "../../src/log/log.ts";
import { Publisher } from "../../src/publisher/publisher.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { numbers } from "../../testkit/nodes.ts";
import { Service } from "../../testkit/service.ts";

interface Result {
  id?: string;
  sockets?: number;
  seq?: number;
  users?: Record<string, number>;
  error?: { code: string; detail: string };
}

const encoder = new TextEncoder();
const TYPE = { "content-type": "application/x-ndjson" };

async function post(service: Service, body: string, headers: Record<string, string> = {}): Promise<Result[]> {
  const answer = await service.fetch("/v1/messages", {
    method: "POST",
    headers: { ...TYPE, ...headers },
    body,
  });
  assertEquals([answer.status, answer.headers.get("content-type")], [200, "application/x-ndjson"]);
  return resultsIn(await answer.text());
}

function resultsIn(text: string): Result[] {
  assert(text === "" || text.endsWith("\n"));
  return text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
}

Deno.test("A batch of lines is sent in order, and has one result a line in the same order", async (t) => {
  await using service = await Service.start();

  await t.step("also where some lines are wrong, which harm no other", async () => {
    const lines = Array.from({ length: 1_200 }, (_, i) => `{"to":"alice","data":${i},"id":"m${i + 1}"}`);
    const wrong: Record<number, [line: string, code: string, says: RegExp]> = {
      500: ['{"to":"alice","data":', "invalid_message", /not JSON/],
      501: [
        `{"to":"alice","data":"${"x".repeat(2_000_000)}"}`,
        "too_large",
        /at most 1048576 bytes: it has 20000\d\d; send less/,
      ],
      502: [
        `{"to":"alice","data":"${"x".repeat(70_000)}"}`,
        "too_large",
        /line\.data: .*at most 65536 bytes: it has 70002; .*USERWIRE_MAX_BODY_BYTES/,
      ],
      503: ['{"to":"a b","data":1}', "invalid_username", /line\.to: .*white space/],
      504: ['{"to":"alice"}', "invalid_request", /line\.data: is missing/],
      505: ['{"to":"alice","data":1,"tll":7}', "invalid_request", /tll/],
      506: ["[1]", "invalid_request", /line: must be an object/],
      507: ['{"to":"nobody","data":1,"expect":"online"}', "user_offline", /nothing was sent/],
      508: ['{"to":"alice","data":01}', "invalid_message", /not JSON/],
    };
    for (const [number, [line]] of Object.entries(wrong)) lines[Number(number) - 1] = line;
    const results = await post(service, `${lines.join("\n")}\n\n \r\n`);
    assertEquals(results.length, 1_200);
    let seq = 0;
    for (const [i, result] of results.entries()) {
      const [, code, says] = wrong[i + 1] ?? [];
      if (code === undefined) {
        assertEquals([result.id, result.seq, result.error], [`m${i + 1}`, ++seq, undefined]);
      } else {
        assertEquals([i + 1, result.error?.code], [i + 1, code]);
        assertMatch(result.error!.detail, says!);
      }
    }
    const kept = await (await service.fetch("/v1/users/alice/messages?after=1188&limit=10")).json();
    assertEquals(kept.items.map(({ data }: { data: number }) => data), [1_197, 1_198, 1_199]);
  });

  await t.step("with all fields of a batch's items", async () => {
    const results = await post(
      service,
      '{"to":["bob","carol"],"text":"hi","ttl":5}\r\n{"to":"bob","base64":"AAE="}\n{"to":"bob","data":null,"expect":"online"}',
    );
    assertEquals(results.map(({ users, seq, error }) => [users, seq, error?.code]), [
      [{ bob: 0, carol: 0 }, undefined, undefined],
      [undefined, 2, undefined],
      [undefined, undefined, "user_offline"],
    ]);
  });

  await t.step("once, where a call is repeated with its key", async () => {
    const key = { "idempotency-key": "k1" };
    const first = await post(service, '{"to":"dora","data":1}\n{"to":"dora","data":2}\n', key);
    const again = await post(
      service,
      '{"to":"dora","data":1}\n{"to":"dora","data":2}\n{"to":"dora","data":3}',
      key,
    );
    assertEquals(again.slice(0, 2), first);
    assertEquals(again[2]!.seq, 3);
    const [other] = await post(service, '{"to":"dora","data":4}', key);
    assertEquals(other!.error?.code, "idempotency_conflict");
  });

  await t.step("and is refused where it is none", async () => {
    for (
      const [headers, body, status] of [
        [{}, undefined, 400],
        [{ "content-encoding": "gzip" }, "{}", 415],
        [{ "idempotency-key": "a b" }, "{}", 400],
      ] as const
    ) {
      const answer = await service.fetch("/v1/messages", {
        method: "POST",
        headers: { ...TYPE, ...headers },
        ...(body !== undefined && { body }),
      });
      await answer.body?.cancel();
      assertEquals([headers, answer.status], [headers, status]);
    }
  });
});

Deno.test("Results come while the body is still being sent, and after it for who reads only then", async () => {
  await using service = await Service.start();
  const { hostname, port } = new URL(service.server.url);
  using client = await Deno.connect({ hostname, port: Number(port) });
  const write = async (text: string) => {
    for (let rest = encoder.encode(text); rest.length > 0;) rest = rest.subarray(await client.write(rest));
  };
  const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
  let heard = "";
  const hear = async (pattern: RegExp) => {
    const buffer = new Uint8Array(65_536);
    while (!pattern.test(heard)) {
      const count = await withDeadline(client.read(buffer), 20_000, `${pattern} in the answer`);
      assert(count !== null, `The answer ended: ${heard}`);
      heard += new TextDecoder().decode(buffer.subarray(0, count));
    }
  };
  await write(
    `POST /v1/messages HTTP/1.1\r\nHost: ${hostname}:${port}\r\nContent-Type: application/x-ndjson\r\n` +
      `Transfer-Encoding: chunked\r\n\r\n${chunk('{"to":"alice","data":1}\n{"to":"al')}`,
  );
  await hear(/"seq":1\b/);
  // The rest of a character and of a line comes later.
  await write(chunk('ice","data":"é'.slice(0, -1)) + chunk('"}\n'));
  await hear(/"seq":2\b/);
  const many = '{"to":"alice","data":1}\n'.repeat(3_000);
  await write(chunk(many) + "0\r\n\r\n");
  await hear(/\r\n0\r\n\r\n$/);
  assertEquals(heard.match(/"seq":/g)!.length, 3_002);
});

// ---------------------------------------------------------------------------------------------------------
// What it holds, and for how long

const ANYBODY: Caller = {
  name: "test",
  mayAddress: () => true,
  mayAddressGroup: () => true,
  mayAddressAll: true,
};

/** A call whose body and answer a test has in hand. */
class Bench implements AsyncDisposable {
  readonly #broker = new MemoryBroker();
  readonly #deadlines: Deadlines;
  readonly calls: LineCalls;
  readonly api: Api;
  /** Lines that were taken from the body. */
  taken = 0;

  constructor(
    { limitMs = 60_000, ...limits }: { maxUnreadBytes?: number; maxLines?: number; limitMs?: number },
  ) {
    this.#deadlines = new Deadlines(limitMs);
    const history = new MemoryHistory(this.#broker, { limits: { count: 5, ttlMs: 60_000 } });
    const bodies = { maxBytes: 1, deadlines: this.#deadlines };
    this.calls = new LineCalls(limits);
    this.api = {
      publisher: new Publisher(this.#broker, history),
      maxBodyBytes: 65_536,
      maxFanoutBytes: 1e9,
      bodies: { single: bodies, small: bodies, bulk: bodies },
      log: silentLog,
    } as unknown as Api;
  }

  /** @param lines How many; the body stands still after them, unless it ends. */
  call(lines: number, ends = true, caller = ANYBODY): Response {
    const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
      pull: (controller) => {
        if (this.taken < lines) controller.enqueue(encoder.encode(`{"to":"alice","data":${this.taken++}}\n`));
        else if (ends) controller.close();
        else return new Promise(() => {});
      },
    }, { highWaterMark: 0 });
    const request = new Request("http://localhost/", { method: "POST", body });
    return this.calls.answer(request, this.api, caller, null);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#broker.close();
    this.#deadlines.close();
  }
}

Deno.test("No more of the body is read while too many results wait to be read, and all come then", async () => {
  await using bench = new Bench({ maxUnreadBytes: 2_000 });
  const { body } = bench.call(500);
  let before = -1;
  await until(() => {
    const stands = bench.taken === before && bench.taken > 0;
    before = bench.taken;
    return stands;
  }, "the call to stand still");
  assert(bench.taken < 400, `${bench.taken} lines were read for nobody`);
  assertEquals(resultsIn(await new Response(body).text()).map(({ seq }) => seq).at(-1), 500);
});

Deno.test("A client that reads no results is given up, and so is one that stops sending", async (t) => {
  await t.step("no results", async () => {
    await using bench = new Bench({ maxUnreadBytes: 100, limitMs: 50 });
    const { body } = bench.call(50);
    // Its results end with an error, which is seen by who reads then.
    const reader = body!.getReader();
    await until(() => reader.closed.then(() => false, () => true), "the end of the call");
  });
  await t.step("stops sending", async () => {
    await using bench = new Bench({ limitMs: 50 });
    const results = resultsIn(await new Response(bench.call(3, false).body).text());
    assertEquals(results.map(({ error }) => error?.code), [undefined, undefined, undefined, "too_slow"]);
  });
  await t.step("has left", async () => {
    await using bench = new Bench({});
    const { body } = bench.call(1e9);
    await until(() => bench.taken > 10, "some lines");
    await body!.cancel();
    let before = -1;
    await until(() => before === (before = bench.taken), "no more lines to be read");
  });
});

Deno.test("A call has 100,000 lines, a few are under way at one time, and each line needs the right", async () => {
  assertEquals(MAX_LINES, 100_000);
  await using bench = new Bench({ maxLines: 40 });
  const results = resultsIn(await new Response(bench.call(45).body).text());
  assertEquals(results.map(({ seq, error }) => seq ?? error?.code), [...numbers(1, 40), "too_large"]);
  assertMatch(results[40]!.error!.detail, /at most 40 lines: this one and what comes after it was not sent/);

  bench.taken = 0;
  const nobody: Caller = {
    name: "shop",
    mayAddress: () => false,
    mayAddressGroup: () => false,
    mayAddressAll: false,
  };
  const [refused] = resultsIn(await new Response(bench.call(1, true, nobody).body).text());
  assertEquals(refused!.error?.code, "forbidden");

  bench.taken = 0;
  const open = Array.from({ length: 16 }, () => bench.call(0, false));
  assertEquals(bench.call(0).status, 429);
  for (const { body } of open) await body!.cancel();
  await until(async () => {
    const answer = bench.call(0);
    await answer.body?.cancel();
    return answer.status === 200;
  }, "room for another call");
});
