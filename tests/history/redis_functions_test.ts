/**
 * The Redis functions: the contract of the history holds for what they send, in all three forms; what they are given is checked;
 * and what was lost is found out as if a node had sent it.
 */
import { assert, assertEquals, assertMatch, assertNotEquals, assertRejects } from "@std/assert";
import fc from "../packages/fast_check.ts";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { functionLibrary, type FunctionSettings, isOlder } from "../../src/history/function_library.ts";
import type { HistoryLimits } from "../../src/history/history.ts";
import { formatEnvelope, frameOf } from "../../src/protocol/envelope.ts";
import { isJson } from "../../src/protocol/json.ts";
import { commandsOf } from "../../src/redis/rights.ts";
import { PLAIN, SHARDED } from "../../src/redis/pubsub_words.ts";
import { historyContract, outgoing, seqsOf, textsOf } from "../contracts/history.ts";
import { asSteps } from "../contracts/steps.ts";
import { connected } from "../../testkit/connected.ts";
import { until } from "../../testkit/deadline.ts";
import { byFunction, type Command, functionCall, scriptCall } from "../../testkit/function_history.ts";
import { memoryLog } from "../../testkit/memory_log.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { TRACE_PARENTS } from "../../testkit/trace_parents.ts";

const SETTINGS: FunctionSettings = { count: 100, ttlMs: 300_000, maxBytes: 65_536 };
const LARGE = 8 * 1_024 * 1_024;
const KEY = "userwire:{alice}";

async function load(redis: RedisServer, settings: Partial<FunctionSettings> = {}): Promise<void> {
  await redis.cli("FUNCTION", "LOAD", "REPLACE", functionLibrary(PLAIN, { ...SETTINGS, ...settings }));
}

async function open(url: string, options: Partial<Parameters<typeof openEngine>[0]> = {}): Promise<Engine> {
  const engine = openEngine({ redisUrl: url, ...options });
  await connected(engine);
  return engine;
}

type Sent = [sockets: number, seq: number, epoch: string, id: string];

async function send(redis: RedisServer, payload: string, ...options: string[]): Promise<Sent> {
  return await redis.cli("FCALL", "userwire_send", "1", KEY, payload, ...options) as Sent;
}

async function refusal(redis: RedisServer, ...args: (string | Uint8Array)[]): Promise<string> {
  const error = await assertRejects(() => redis.cli("FCALL", "userwire_send", ...args), Error);
  return error.message;
}

// ---------------------------------------------------------------------------------------------------------
// The contract

async function timeOf(redis: RedisServer): Promise<number> {
  const [seconds, micros] = await redis.cli("TIME") as [string, string];
  return Number(seconds) * 1_000 + Number(micros) / 1_000;
}

/** Runs the contract on one place; each history in it is written by the function, and read by two nodes. */
async function keepsContract(
  t: Deno.TestContext,
  place: { url: string; clock: RedisServer; command: Command },
  prepare: (limits: HistoryLimits) => Promise<{ call: readonly string[]; isByNodes: boolean }>,
  isTested = (_claim: string) => true,
): Promise<void> {
  await asSteps(t, (test) =>
    historyContract("It", async (limits) => {
      const { call, isByNodes } = await prepare(limits);
      const options = {
        history: limits.count,
        historyTtlS: limits.ttlMs / 1_000,
        ...(isByNodes && { redisFunctions: "load" as const, maxBodyBytes: LARGE }),
      };
      const [ours, theirs] = [await open(place.url, options), await open(place.url, options)];
      return {
        history: byFunction(ours.history, place.command, call),
        broker: ours.broker,
        peer: byFunction(theirs.history, place.command, call),
        async elapse(ms) {
          const endMs = await timeOf(place.clock) + ms;
          await until(async () => await timeOf(place.clock) > endMs, `${ms} ms to pass on Redis' clock`);
        },
        async dispose() {
          await ours.close();
          await theirs.close();
        },
      };
    }, { test: (claim, body) => isTested(claim) && test(claim, body) }));
}

for (const how of ["the function", "its script"]) {
  redisTest(`What ${how} sends keeps the contract of the history`, async (t) => {
    await using redis = await RedisServer.start();
    const place = {
      url: redis.url,
      clock: redis,
      command: (_: string, ...args: string[]) => redis.cli(...args),
    };
    await keepsContract(t, place, async (limits) => {
      const settings = { ...limits, maxBytes: LARGE };
      if (how === "its script") return { call: scriptCall(settings), isByNodes: false };
      await load(redis, settings);
      return { call: functionCall(), isByNodes: false };
    });
  });
}

redisTest("What the function sends on a cluster keeps the contract of the history", async (t) => {
  await using cluster = await ClusterSet.start();
  const [first] = cluster.nodes as [ClusterSet["nodes"][number]];
  const place = { url: cluster.url, clock: first.server, command: onCluster(cluster) };
  // Not once more in lists: of these the function knows nothing.
  await keepsContract(
    t,
    place,
    () => Promise.resolve({ call: functionCall(), isByNodes: true }),
    (claim) => !claim.includes(" in a list "),
  );
});

/** Asks one master after the other. */
function onCluster(cluster: ClusterSet): Command {
  return async (_key, ...args) => {
    for (const { server } of cluster.nodes) {
      try {
        return await server.cli(...args);
      } catch (error) {
        if (!/^MOVED /.test((error as Error).message)) throw error;
      }
    }
    throw new Error("No master keeps it");
  };
}

// ---------------------------------------------------------------------------------------------------------
// What it is given

redisTest("The function writes the envelope that a node writes, and answers as documented", async () => {
  await using redis = await RedisServer.start();
  await load(redis);
  using subscriber = await RedisCommands.connect({ port: redis.port });
  await subscriber.command("SUBSCRIBE", "alice");
  const cases = [
    { kind: "json", text: '{"order": 7, "a":"\\u00e9\\"\\\\", "b":[-0.5e-7]}' },
    { kind: "text", text: 'quotes ", \\, /, \u0000, é, 🦊' },
    { kind: "binary", bytes: new Uint8Array([0, 1, 254, 255]) },
  ] as const;
  for (const [i, payload] of cases.entries()) {
    const args = payload.kind === "json"
      ? [payload.text]
      : payload.kind === "text"
      ? [payload.text, "as", "text"]
      : [payload.bytes.toBase64(), "AS", "base64"];
    const [sockets, seq, epoch, id] = await send(redis, ...(args as [string]), "id", `m${i}`);
    assertEquals([sockets, seq, id], [1, i + 1, `m${i}`]);
    const [[, [, envelope]]] = await redis.cli("XREVRANGE", `${KEY}:inbox`, "+", "-", "COUNT", 1) as [
      [string, [string, string]],
    ];
    const [, ts] = /"ts":(\d+)/.exec(envelope)!;
    const { head, tail } = formatEnvelope(payload, { id, ts: Number(ts) });
    const [, tag] = /"tag":"([\w-]{8})"/.exec(envelope)!;
    const ours = `${head}"seq":${seq},"tag":"${tag}",${tail}`;
    // A text may be escaped in more than one way.
    const frame = (whole: string) => JSON.parse(whole.slice(5));
    assertEquals([envelope.slice(0, 5), frame(envelope)], [ours.slice(0, 5), frame(ours)]);
    if (payload.kind !== "text") assertEquals(envelope, ours);
    assertEquals(tag!.slice(0, 4), epoch.slice(0, 4));
  }
  assertMatch((await send(redis, "1"))[3], /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-a[\da-f]{3}-[\da-f]{12}$/);
  const again = await send(redis, "2", "key", "k", "ttl", "60");
  assertEquals(await send(redis, "2", "key", "k"), again);
  assertMatch(await refusal(redis, "1", KEY, "3", "key", "k"), /^CONFLICT .*use a new key/);
  assertMatch(
    await refusal(redis, "1", "userwire:{bob}", "3", "expect", "online"),
    /^OFFLINE .*nothing was sent/,
  );
  assertEquals(await redis.cli("FCALL_RO", "userwire_online", 0, "alice", "bob"), [1, 0]);
  assertEquals(await redis.cli("FCALL_RO", "userwire_version", 0), "1 0.1.0 100 300000 65536");
});

redisTest(
  "What the function names is named once, also when it is loaded anew; and every history is cut",
  async () => {
    await using redis = await RedisServer.start();
    using caller = await RedisCommands.connect({ port: redis.port });
    const users = Array.from({ length: 8 }, (_, i) => `user-${i}`);
    const ids = new Set<string>(), epochs = new Set<string>(), tags = new Set<string>();
    const [messages, loads] = [100, 2];
    for (let n = 0; n < loads; n++) {
      await load(redis, { count: 5 });
      for (let i = 0; i < messages * users.length; i++) {
        const call = ["FCALL", "userwire_send", 1, `userwire:{${users[i % users.length]}}`, "1"] as const;
        const [, , epoch, id] = await caller.command(...call) as Sent;
        ids.add(id);
        epochs.add(epoch);
      }
    }
    assertEquals([ids.size, epochs.size], [loads * messages * users.length, users.length]);
    for (const user of users) {
      const entries = await redis.cli("XRANGE", `userwire:{${user}}:inbox`, "-", "+") as [string, string[]][];
      // Of 200, with some 25 in each part of the stream: which ones cut it is by chance, whichever user's turn it is.
      assert(entries.length < 120, `${entries.length} messages of ${user} are kept`);
      for (const [, [, envelope]] of entries) {
        const [, epoch, own] = /"tag":"([\w-]{4})([\w-]{4})"/.exec(envelope!)!;
        assert(epochs.values().some((name) => name.startsWith(epoch!)));
        tags.add(own!);
      }
      assert(entries.length >= 5);
    }
    // Of 2^24: two may be the same.
    assert(tags.size > 0.9 * users.length * 5);
  },
);

redisTest("The function refuses what is wrong, says why, and has done nothing then", async () => {
  await using redis = await RedisServer.start();
  await load(redis, { maxBytes: 100 });
  const cases: [args: (string | Uint8Array)[], says: RegExp][] = [
    [["0", KEY, "1"], /the one key must be userwire:\{<username>\}/],
    [["1", "alice", "1"], /the one key must be/],
    [["2", KEY, "userwire:{bob}", "1"], /the one key must be/],
    [["1", "userwire:{}", "1"], /the one key must be/],
    [["1", "userwire:{a b}", "1"], /username .* white space/],
    [["1", "userwire:{a\u00a0b}", "1"], /username .* white space/],
    [["1", "userwire:{a\u2028b}", "1"], /username .* white space/],
    [["1", "userwire:{a{b}", "1"], /username .* brace/],
    [["1", "userwire:{..}", "1"], /username .* dots/],
    [["1", "userwire:{__keyevent@0__:set}", "1"], /username .* reserved/],
    [["1", "userwire:{userwire:timeline}", "1"], /username .* reserved/],
    [["1", new TextEncoder().encode("userwire:{\ufffd}"), "1"], /username .* UTF-8/],
    [["1", `userwire:{${"x".repeat(257)}}`, "1"], /username .* at most 128/],
    [["1", KEY], /there is no payload/],
    [["1", KEY, ""], /not JSON: it is empty/],
    [["1", KEY, "hello"], /not JSON: .*the option as text/],
    [["1", KEY, Uint8Array.of(0x22, 0xc3, 0x22)], /not JSON: it is not valid UTF-8/],
    [["1", KEY, Uint8Array.of(0xed, 0xa0, 0x80), "as", "text"], /not valid UTF-8/],
    [["1", KEY, "a===", "as", "base64"], /not base64/],
    [["1", KEY, "abc", "as", "base64"], /not base64/],
    [["1", KEY, JSON.stringify("x".repeat(99))], /101 bytes of at most 100/],
    [
      ["1", KEY, "1", "tll", "60"],
      /there is no option "tll": there are ttl, key, id, expect, as and traceparent/,
    ],
    [["1", KEY, "1", "ttl"], /the option ttl has no value/],
    [["1", KEY, "1", "ttl", "0"], /the option ttl must be a number of seconds/],
    [["1", KEY, "1", "ttl", "-1"], /the option ttl/],
    [["1", KEY, "1", "ttl", "0x10"], /the option ttl/],
    [["1", KEY, "1", "ttl", "2592001"], /the option ttl/],
    [["1", KEY, "1", "key", "a b"], /the option key must have 1 to 128/],
    [["1", KEY, "1", "key", "x".repeat(129)], /the option key/],
    [["1", KEY, "1", "id", 'a"b'], /the option id must have 1 to 64 .*: it is "a"b"/],
    [["1", KEY, "1", "id", ""], /the option id/],
    [["1", KEY, "1", "expect", "offline"], /the option expect must be online/],
    [["1", KEY, "1", "as", "xml"], /the option as must be json, text or base64/],
  ];
  for (const [args, says] of cases) {
    const said = await refusal(redis, ...args);
    assertMatch(said, says);
    assertMatch(said, /^INVALID .*; nothing was sent$/);
  }
  assertEquals(await redis.cli("KEYS", "*"), []);
  await assertRejects(() => redis.cli("FCALL_RO", "userwire_online", 0), Error, "INVALID give 1 to 1000");
});

redisTest("The function reads a trace parent as a node does, and leaves out what is none", async () => {
  await using redis = await RedisServer.start();
  await load(redis);
  for (const [traceparent] of TRACE_PARENTS) {
    const [, , , id] = await send(redis, '{"order":7}', "traceparent", traceparent);
    const [[, [, envelope]]] = await redis.cli("XREVRANGE", `${KEY}:inbox`, "+", "-", "COUNT", "1") as [
      [string, [string, string]],
    ];
    const { ts } = JSON.parse(frameOf(envelope));
    const { tail } = formatEnvelope({ kind: "json", text: '{"order":7}' }, { id, ts, traceparent });
    assertEquals(envelope.slice(-tail.length - 2), `",${tail}`, traceparent.slice(0, 99));
  }
});

redisTest("The function takes no payload that JSON.parse refuses", async () => {
  await using redis = await RedisServer.start();
  await load(redis, { count: 0 });
  using commands = await RedisCommands.connect({ port: redis.port });
  const isTaken = async (text: string): Promise<boolean> => {
    try {
      await commands.command("FCALL", "userwire_send", "1", KEY, text);
      return true;
    } catch (error) {
      assertMatch((error as Error).message, /^INVALID the payload is not JSON: /);
      return false;
    }
  };
  const traps = [
    ...[
      "01",
      "[01]",
      "-01",
      "1.",
      "[1.]",
      "-.5",
      ".5",
      "+1",
      "[+1]",
      "0x10",
      "0x1p3",
      "NaN",
      "-nan",
      "Infinity",
    ],
    ...[
      "-inf",
      "[1,]",
      '{"a":1,}',
      "1 2",
      "1e",
      "1e+",
      "1.e5",
      "--1",
      '"a\nb"',
      '"a\tb"',
      '["a\tb","c"]',
      "\f1",
    ],
    ...[
      "1\0",
      '"\\x"',
      '"\\u12"',
      '"\\ud800"',
      "nul",
      "True",
      "{}{}",
      "[1 2]",
      "{1:2}",
      "'a'",
      "\ufeff1",
      "/**/1",
    ],
    ...[
      "-0",
      "1E5",
      "1e05",
      "-0.0e-0",
      "[10,100,-0.05]",
      "1.05",
      "[0.00,100.001]",
      "20001",
      '"\\\\"',
      '{"0x":"01."}',
    ],
    ...[' { "a" : [ true , false , null ] } ', '"\u2028\u007f"', '"\\u0000"', '{"":""}', "[[[]]]", '"true"'],
    ...["[1e5,2.5E-3,-7]", "[-1,0,01]", "[0,-00]", '"\\"01"', '["\\\\",01]', "tru", "[truefalse]", "1true"],
  ];
  for (const text of traps) {
    // Half of a surrogate pair is the one thing of these that it refuses and JSON does not.
    assertEquals([text, await isTaken(text)], [text, isJson(text) && text !== '"\\ud800"']);
  }
  const pieces = fc.constantFrom(
    ...[
      '"',
      "\\",
      "0",
      "1",
      "-",
      "+",
      ".",
      "e",
      "E",
      "x",
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      " ",
      "\t",
      "\n",
      "a",
      "é",
    ],
    ...["true", "null", "NaN", "inf", '"a"', "01", "1.5", "\\u", "🦊", "\u0001"],
  );
  const text = fc.oneof(
    { weight: 2, arbitrary: fc.array(pieces, { minLength: 1, maxLength: 12 }).map((all) => all.join("")) },
    { weight: 1, arbitrary: fc.json() },
    // JSON with one piece too much.
    fc.tuple(fc.json(), pieces, fc.nat()).map(([json, piece, at]) => {
      const place = at % (json.length + 1);
      return json.slice(0, place) + piece + json.slice(place);
    }),
  ).filter((text) => text !== "" && text.isWellFormed());
  await fc.assert(
    fc.asyncProperty(text, async (text) => {
      const taken = await isTaken(text);
      if (taken !== isJson(text)) assert(!taken && /\\u[dD]/.test(text), `${JSON.stringify(text)}: ${taken}`);
    }),
    { numRuns: 600 },
  );
});

// ---------------------------------------------------------------------------------------------------------
// What was lost, and who sends

/** Waits until no node is in the middle of finding out what a Redis has kept. */
async function served(...engines: Engine[]): Promise<void> {
  for (const { history } of engines) {
    await until(
      () => history.since("nobody", undefined, 1).then(() => true, () => false),
      "the history to be reachable",
      15_000,
    );
  }
}

redisTest("Nodes find out the loss of what only the function had sent", async () => {
  await using redis = await RedisServer.start({ appendOnly: true });
  await load(redis);
  await using stack = new AsyncDisposableStack();
  const ours = await open(redis.url);
  stack.defer(() => ours.close());
  const [, , epoch] = await send(redis, "1");
  const copy = await redis.copyData();
  await send(redis, "2");
  await send(redis, "3");
  // A node takes the newest append of others in with its next look.
  const last = () => redis.cli("HGET", "userwire:{userwire:timeline}:last", "function");
  assertMatch(String(await last()), /^\d+ 3 \S{8} alice$/);
  const life = async () => String(await redis.cli("HGET", "userwire:{userwire:timeline}", "life"));
  const before = await life();
  await ours.history.since("alice", 0, 10);
  // Each look reads all records, once; when it looks again it has taken in what it saw before.
  const looks = async () =>
    Number(/^cmdstat_hgetall:calls=(\d+)/m.exec(await redis.info("commandstats"))?.[1] ?? 0);
  const looked = await looks();
  await until(async () => await looks() >= looked + 2, "two looks at Redis");
  await redis.restart({ keepData: true, from: copy });
  await served(ours);
  assertNotEquals(await life(), before);
  const page = await ours.history.since("alice", 0, 10);
  assertNotEquals(page.epoch, epoch);
  assertEquals(page.previousEpochs, [{ epoch, seq: 1 }]);
  const [, seq, now] = await send(redis, "4");
  assertEquals([seq, now], [2, page.epoch]);
});

redisTest("The function goes on after a restart with all data, as soon as a node has looked", async () => {
  await using redis = await RedisServer.start({ appendOnly: true });
  await load(redis);
  const [, , epoch] = await send(redis, "1");
  await redis.restart({ keepData: true });
  assertMatch(await refusal(redis, "1", KEY, "2"), /^NOTREADY .*nothing was sent/);
  assertMatch(await refusal(redis, "1", KEY, "2"), /^NOTREADY /);
  const ours = await open(redis.url);
  try {
    await served(ours);
    // Nobody remembers what there was: so this node can't vouch for it, and all begin anew.
    const [, seq, next] = await send(redis, "2");
    assertEquals([seq, next.slice(8)], [2, `${epoch}1`]);
    await redis.restart({ keepData: true });
    await served(ours);
    assertEquals((await send(redis, "3")).slice(1, 3), [3, next]);
    assertEquals(textsOf(await ours.history.since("alice", 0, 10)), ["1", "2", "3"]);
  } finally {
    await ours.close();
  }
});

redisTest("Without any node the function goes on by itself after a while, in a new timeline", async () => {
  await using redis = await RedisServer.start({ appendOnly: true });
  await load(redis);
  const [, , epoch] = await send(redis, "1");
  await redis.restart({ keepData: true });
  assertMatch(await refusal(redis, "1", KEY, "2"), /^NOTREADY /);
  // As if five seconds had passed.
  const asked = Number(await redis.cli("HGET", "userwire:{userwire:timeline}", "asked"));
  await redis.cli("HSET", "userwire:{userwire:timeline}", "asked", asked - 5_000);
  const [, seq, next] = await send(redis, "2");
  assertEquals([seq, next.slice(8)], [2, `${epoch}1`]);
  assertEquals((await send(redis, "3")).slice(1, 3), [3, next]);
  const ours = await open(redis.url);
  try {
    await ours.history.append("alice", outgoing("4"));
    assertEquals(seqsOf(await ours.history.since("alice", 0, 10)), [1, 2, 3, 4]);
    assertEquals((await ours.history.since("alice", 0, 10)).epoch, next);
  } finally {
    await ours.close();
  }
});

redisTest("A master that was a copy in between is not numbered in before a node has looked", async () => {
  await using redis = await RedisServer.start();
  await load(redis);
  await send(redis, "1");
  await using other = await RedisServer.start();
  await load(other);
  await redis.follow(other);
  await redis.copied();
  await redis.follow();
  await load(redis);
  // What it has is the other's: nothing, and so a timeline begins.
  const [, seq] = await send(redis, "2");
  assertEquals(seq, 1);
  await send(other, "1");
  await redis.follow(other);
  await redis.copied();
  assertMatch(await refusal(redis, "1", KEY, "3"), /^READONLY /);
  await redis.follow();
  assertMatch(await refusal(redis, "1", KEY, "3"), /^NOTREADY /);
});

redisTest("Nodes and the function number one user's messages together", async () => {
  await using redis = await RedisServer.start();
  await load(redis);
  const ours = await open(redis.url);
  try {
    await Promise.all(Array.from({ length: 40 }, async (_, i) => {
      if (i % 2) await send(redis, JSON.stringify(`${i}`));
      else await ours.history.append("alice", outgoing(`${i}`));
    }));
    const page = await ours.history.since("alice", 0, 100);
    assertEquals(seqsOf(page), Array.from({ length: 40 }, (_, i) => i + 1));
    assertEquals(page.previousEpochs, []);
  } finally {
    await ours.close();
  }
});

redisTest("A user of Redis with the documented rights sends by the function, and does no more", async () => {
  await using redis = await RedisServer.start();
  await load(redis);
  const page = await Deno.readTextFile(new URL("../../docs/redis.md", import.meta.url));
  const rules = [...page.matchAll(/^ACL SETUSER shop (.+)$/gm)].map(([, rule]) => rule!.split(" "));
  assertEquals(rules.length, 2);
  const [single, cluster] = rules as [string[], string[]];
  for (const [rule, words] of [[single, PLAIN], [cluster, SHARDED]] as const) {
    const source = functionLibrary(words, SETTINGS);
    const needed = commandsOf({ source, sha: "" }).map((name) => `+${name.toLowerCase().replace(" ", "|")}`);
    assertEquals(
      new Set(rule.filter((word) => word.startsWith("+"))),
      new Set([...needed, "+fcall", "+fcall_ro"]),
    );
  }
  await redis.cli("ACL", "SETUSER", "shop", ...single.map((word) => word.replace("PASSWORD", "s3cret")));
  using shop = await RedisCommands.connect({ port: redis.port });
  await shop.command("AUTH", "shop", "s3cret");
  const sent = await shop.command("FCALL", "userwire_send", 1, KEY, "1", "key", "k", "expect", "online")
    .catch((error) => error.message);
  assertMatch(sent, /^OFFLINE /);
  for (const seq of [1, 2, 3]) {
    const reply = await shop.command("FCALL", "userwire_send", 1, KEY, "1", "key", `k${seq}`) as Sent;
    assertEquals(reply[1], seq);
  }
  assertEquals(await shop.command("FCALL_RO", "userwire_online", 0, "alice"), [0]);
  await assertRejects(() => shop.command("FLUSHALL"), Error, "NOPERM");
  await assertRejects(() => shop.command("FUNCTION", "LOAD", "REPLACE", "x"), Error, "NOPERM");
  await assertRejects(() => shop.command("FCALL", "userwire_send", 1, "alice", "1"), Error, "NOPERM");
});

// ---------------------------------------------------------------------------------------------------------
// Loading

const version = (redis: RedisServer) => redis.cli("FCALL_RO", "userwire_version", 0).catch(() => undefined);

redisTest(
  "A node loads the functions at its start, again after they were lost, and over older ones only",
  async () => {
    await using redis = await RedisServer.start();
    const log = memoryLog();
    const options = {
      redisFunctions: "load",
      history: 7,
      historyTtlS: 60,
      maxBodyBytes: 1_000,
      log,
    } as const;
    const ours = await open(redis.url, options);
    try {
      assertEquals(await version(redis), "1 0.1.0 7 60000 1000");
      await redis.restart();
      await served(ours);
      assertEquals(await version(redis), "1 0.1.0 7 60000 1000");
      const text = functionLibrary(PLAIN, SETTINGS);
      for (
        const [loaded, stays] of [["1 0.0.9", false], ["1 0.1.1", true], ["2 0.0.1", true], [
          "x",
          false,
        ]] as const
      ) {
        await redis.cli(
          "FUNCTION",
          "LOAD",
          "REPLACE",
          text.replace("VERSION = '1 0.1.0", `VERSION = '${loaded}`),
        );
        const another = await open(redis.url, options);
        await another.close();
        assertEquals(await version(redis), stays ? `${loaded} 100 300000 65536` : "1 0.1.0 7 60000 1000");
      }
      const off = await open(redis.url);
      await off.close();
      assertEquals(await version(redis), "1 0.1.0 7 60000 1000");
    } finally {
      await ours.close();
    }
  },
);

redisTest("A node without the right to load functions says so and serves", async () => {
  await using redis = await RedisServer.start();
  const log = memoryLog();
  await redis.cli("ACL", "SETUSER", "default", "-function|load");
  const ours = await open(redis.url, { redisFunctions: "load", log });
  try {
    await ours.history.append("alice", outgoing("1"));
    const [warning] = log.records.filter(({ event }) => event === "redis functions not loaded");
    assertMatch(String(warning!.fields.reason), /\+function\|load/);
  } finally {
    await ours.close();
  }
});

redisTest(
  "On a cluster the functions are on every master, and wait for a user who is on the way",
  async () => {
    await using cluster = await ClusterSet.start();
    const command = onCluster(cluster);
    const call = (...args: string[]) => command(KEY, "FCALL", "userwire_send", "1", KEY, ...args);
    await Promise.all(
      cluster.nodes.map(({ server }) =>
        server.cli("FUNCTION", "LOAD", "REPLACE", functionLibrary(SHARDED, SETTINGS))
      ),
    );
    const untold = await assertRejects(() => call("1"), Error);
    assertMatch(untold.message, /^NOTREADY .*USERWIRE_REDIS_FUNCTIONS=load/);
    for (const { server } of cluster.nodes) await server.cli("FUNCTION", "FLUSH");
    const ours = await open(cluster.url, { redisFunctions: "load" });
    try {
      for (const { server } of cluster.nodes) assertEquals(await version(server), "1 0.1.0 100 300000 65536");
      const [, , epoch] = await call("1") as Sent;
      const slot = await cluster.slotOf("alice");
      const from = await cluster.keeperOf(slot);
      const to = cluster.nodes.find((node) => node !== from)!;
      await cluster.beginMove(slot, from, to);
      const asked = await assertRejects(() => from.server.cli("FCALL", "userwire_send", 1, KEY, "2"), Error);
      assertMatch(asked.message, /^ASK /);
      using client = await RedisCommands.connect({ port: to.server.port });
      await client.command("ASKING");
      const early = await assertRejects(() => client.command("FCALL", "userwire_send", 1, KEY, "2"), Error);
      assertMatch(early.message, /^TRYAGAIN .*nothing was sent/);
      while (await cluster.moveKeys(slot, from, to) > 0);
      await client.command("ASKING");
      assertEquals((await client.command("FCALL", "userwire_send", 1, KEY, "2") as Sent).slice(1, 3), [
        2,
        epoch,
      ]);
      await cluster.endMove(slot, from, to);
      await until(
        () => ours.history.append("alice", outgoing("3")).then(() => true, () => false),
        "the slot to have moved",
      );
      const page = await ours.history.since("alice", 0, 10);
      assertEquals([page.epoch, seqsOf(page)], [epoch, [1, 2, 3]]);
    } finally {
      await ours.close();
    }
  },
);

Deno.test("isOlder compares format and version, number by number, and no settings", () => {
  assertEquals(isOlder("1 0.9.0 1 1 1", "1 0.10.0 2 2 2"), true);
  assertEquals(isOlder("1 0.10.0 1 1 1", "1 0.9.0 2 2 2"), false);
  assertEquals(isOlder("2 0.1.0 1 1 1", "1 0.9.0 1 1 1"), false);
  assertEquals(isOlder("1 0.1.0 1 1 1", "1 0.1.0 2 2 2"), false);
  assertEquals(isOlder("something else", "1 0.1.0 1 1 1"), true);
});
