/**
 * Bodies that make a lot of work: whatever they hold, others are served in between. The measure is the longest time in
 * which nothing else was done, the least of some tries, as the machine may be busy with other things.
 */
import { assert, assertEquals } from "@std/assert";
import { isJsonInSlices } from "../../src/http/json_text.ts";
import { membersOf, partsOf } from "../../src/protocol/json_parts.ts";
import fc from "../packages/fast_check.ts";
import { stretched } from "../../testkit/deadline.ts";
import { Service } from "../../testkit/service.ts";
import { workedMs } from "../../testkit/worked_time.ts";

const MIB = 1024 * 1024;
/** Before, the worst of these made others wait for 0.6 to 2.7 seconds. */
const LONGEST_MS = 250;
const TRIES = 4;

/** The longest time for which this thread did nothing but one thing, while the work was done. */
async function longestWait(work: () => Promise<void>): Promise<number> {
  let longest = 0;
  let lastMs = workedMs();
  const look = () => {
    const nowMs = workedMs();
    longest = Math.max(longest, nowMs - lastMs);
    lastMs = nowMs;
  };
  const timer = setInterval(look, 1);
  try {
    await work();
    look();
  } finally {
    clearInterval(timer);
  }
  return longest;
}

const items = (data: string) => `{"items":[{"to":"bob","data":1},{"to":"alice","data":${data}}]}`;
const fill = (part: string, bytes: number) => part.repeat(Math.floor(bytes / part.length));
const names = (count: number) => Array.from({ length: count }, (_, i) => `"k${i}":1`).join();

const BODIES: Record<string, [path: string, body: string]> = {
  "a batch of one number with an exponent and much else": [
    "/v1/messages",
    `{"items":[${fill('{"to":"alice","data":{"a":[1,2,3],"b":"text"}},', 45_000)}{"to":"bob","data":[1e0,${
      fill("[1,2],", 3 * MIB)
    }0]}]}`,
  ],
  "a batch of one huge item": ["/v1/messages", items(`[${fill('{"a":"b"},', 3.9 * MIB)}0]`)],
  "two million open brackets": ["/v1/messages", "[".repeat(2_000_000)],
  "two million lists in each other, as data": [
    "/v1/messages",
    items("[".repeat(2_000_000) + "]".repeat(2_000_000)),
  ],
  "as a recipient": [
    "/v1/messages",
    `{"items":[{"data":1,"to":${"[".repeat(2_000_000)}${"]".repeat(2_000_000)}}]}`,
  ],
  "a million recipients of no type": [
    "/v1/messages",
    `{"items":[{"data":1,"to":[${fill("1,", 3.9 * MIB)}1]}]}`,
  ],
  "a thousand items with a thousand wrong recipients each": [
    "/v1/messages",
    `{"items":[${Array(1_000).fill(`{"data":1,"to":[${fill("1,", 1_900)}1]}`)}]}`,
  ],
  "hundreds of thousands of fields": ["/v1/messages", `{"items":[{"to":"alice",${names(280_000)}}]}`],
  "as many names in data": ["/v1/messages", items(`{${names(280_000)}}`)],
  "a question for two million numbers": ["/v1/users/online", `{"users":[${fill("1,", 3.9 * MIB)}1]}`],
  "a question for nested lists": [
    "/v1/users/online",
    `{"users":${"[".repeat(2_000_000)}${"]".repeat(2_000_000)}}`,
  ],
  "a question with many fields": ["/v1/users/online", `{"users":[],${names(280_000)}}`],
  "a payload of nested lists, where large ones are allowed": [
    "/v1/users/alice/messages",
    "[".repeat(2_000_000) + "]".repeat(2_000_000),
  ],
  "a large payload that is none": ["/v1/users/alice/messages", `[${fill("1,", 3.9 * MIB)}`],
};

Deno.test("Others wait for no body, whatever it holds", async (t) => {
  await using service = await Service.start({ USERWIRE_MAX_BODY_BYTES: String(8 * MIB) });
  await using small = await Service.start();
  for (const [what, [path, body]] of Object.entries(BODIES)) {
    await t.step(what, async () => {
      const bytes = new TextEncoder().encode(body);
      for (const one of [service, small]) {
        const waits: number[] = [];
        do {
          waits.push(
            await longestWait(async () => {
              const response = await one.fetch(path, {
                method: "POST",
                headers: { "content-type": "application/json" },
                body: bytes,
              });
              const answer = await response.text();
              // What is wrong with a large body is said in few words.
              if (response.status >= 400) assert(answer.length < 4_096, answer.slice(0, 200));
            }),
          );
        } while (waits.at(-1)! > stretched(LONGEST_MS) && waits.length < TRIES);
        assert(Math.min(...waits) <= stretched(LONGEST_MS), `others waited ${waits} ms`);
      }
    });
  }
});

Deno.test("JSON read in turns is what JSON.parse takes, and comes apart into its parts", async () => {
  // Beyond what is small, so that it is read in turns; white space is nothing.
  const padding = " ".repeat(70_000);
  const same = async (text: string) => {
    let isJson = true;
    try {
      JSON.parse(text);
    } catch {
      isJson = false;
    }
    assertEquals(await isJsonInSlices(padding + text), isJson, text);
    assertEquals(await isJsonInSlices(text + padding), isJson, text);
  };
  for (
    const text of [
      ...[
        "",
        "-",
        "01",
        "1.",
        ".1",
        "1e",
        "1e+",
        "-0",
        "-0.5E-7",
        "1e0",
        "+1",
        "0x1",
        "tru",
        "true",
        "nul",
        "null x",
      ],
      ...[
        '"',
        '"\\',
        '"\\x"',
        '"\\u12g4"',
        '"\\u12',
        '"\\uD800"',
        '"\n"',
        '"\\n"',
        '"\\\\"',
        '"\\\\\\""',
        "'a'",
      ],
      ...[
        "[",
        "]",
        "[]",
        "[,]",
        "[1,]",
        "[1 2]",
        "[1]]",
        "[}",
        "{]",
        "{",
        "{}",
        "{,}",
        '{"a"}',
        '{"a":}',
        "{a:1}",
      ],
      ...[
        '{"a":1,}',
        '{"a":1 "b":2}',
        '{"a":[{"b":[]}]}',
        "{1:2}",
        "NaN",
        "\ufeff1",
        "\u00a01",
        "1\u2028",
        "[1]x",
      ],
    ]
  ) {
    await same(text);
  }
  await fc.assert(
    fc.asyncProperty(fc.json(), fc.nat(), fc.string({ maxLength: 2 }), async (json, at, noise) => {
      await same(json);
      await same(json.slice(0, at % (json.length + 1)) + noise + json.slice(at % (json.length + 1)));
    }),
    { numRuns: 150 },
  );
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(0, 1, 4), (value, indent) => {
      const json = JSON.stringify(value, undefined, indent);
      if (Array.isArray(value)) {
        assertEquals([...partsOf(json)].map((part) => JSON.parse(part!)), JSON.parse(json));
      } else if (typeof value === "object" && value !== null) {
        const members = [...membersOf(json)].map((member) => [member![0], JSON.parse(member![1])]);
        assertEquals(members, Object.entries(JSON.parse(json)));
      }
    }),
    { numRuns: 300 },
  );
});
