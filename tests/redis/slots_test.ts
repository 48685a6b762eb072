/** Hash slots: what a name's is, by the specification and by a real Redis, and lists of them. */
import { assert, assertEquals } from "@std/assert";
import { historyKey, idempotencyKey, positionKey } from "../../src/redis/keys.ts";
import { formatRanges, isIn, nameIn, parseRanges, slotOf, SLOTS } from "../../src/redis/slots.ts";
import { Chance } from "../../testkit/random.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { redisTest } from "../../testkit/redis_server.ts";

Deno.test("slotOf is the CRC-16 of a name, modulo 16384", () => {
  // The example of the specification: 0x31C3 is the whole checksum.
  assertEquals([slotOf("123456789"), 0x31c3 % SLOTS], [12_739, 12_739]);
  assertEquals([slotOf(""), slotOf("alice"), slotOf("é☃")], [0, 749, 14_995]);
});

Deno.test("A user's channel and keys are in one slot, with a prefix and in any script", () => {
  for (const [channel, slot] of [["alice", 749], ["prod:alice", 16_376], ["é☃", 14_995]] as const) {
    const keys = [positionKey(channel), historyKey(channel), idempotencyKey(channel, "x{y}")];
    assertEquals([channel, ...keys].map(slotOf), [slot, slot, slot, slot], channel);
  }
  assertEquals([slotOf("userwire:{alice}:position"), slotOf("userwire:{prod:alice}:inbox")], [749, 16_376]);
});

Deno.test("slotOf goes by what stands in the first braces, unless these are empty or not closed", () => {
  // A name with a closing brace is not in the slot of its keys: so no username has one.
  assertEquals([slotOf("a}b"), slotOf("userwire:{a}b}:x")], [7_866, 15_495]);
  assertEquals([slotOf("userwire:{a}b}:x"), slotOf("x{a}y{b}")], [slotOf("a"), slotOf("a")]);
  assertEquals([slotOf("{{alice}}"), slotOf("{{alice")], [slotOf("{alice"), 2_973]);
  assertEquals([slotOf("a{}{alice}"), slotOf("{alice"), slotOf("}{alice}")], [6_432, 1_235, 749]);
});

redisTest("slotOf says of any name what Redis says", async () => {
  await using cluster = await ClusterSet.start({ masters: 1 });
  using commands = await RedisCommands.connect({ port: cluster.nodes[0]!.server.port });
  const parts = [
    "{",
    "}",
    "{}",
    "a",
    "alice",
    "user:",
    "0",
    " ",
    "é",
    "☃",
    "😀",
    "\u0000",
    "\u007f",
    "\u0080",
    "\\",
  ];
  await Chance.run(async (chance) => {
    for (let i = 0; i < 1_000; i++) {
      const name = Array.from({ length: chance.below(12) }, () => parts[chance.below(parts.length)]!).join(
        "",
      );
      assertEquals(
        slotOf(name),
        Number(await commands.command("CLUSTER", "KEYSLOT", name)),
        JSON.stringify(name),
      );
    }
  });
});

Deno.test("nameIn finds a name in each slot, the same each time", () => {
  for (const slot of [0, 1, 749, SLOTS - 1]) {
    const name = nameIn(slot, "userwire:timeline:");
    assert(/^userwire:timeline:\d+$/.test(name), name);
    assertEquals([slotOf(name), slotOf(`userwire:{${name}}:last`)], [slot, slot]);
    assertEquals(nameIn(slot, "userwire:timeline:"), name);
  }
});

Deno.test("Ranges of slots are written and read, and hold their ends", () => {
  const ranges = [[0, 5_460], [7_000, 7_000], [16_383, 16_383]] as const;
  assertEquals(formatRanges(ranges), "0-5460,7000,16383");
  assertEquals(parseRanges("0-5460,7000,16383"), [...ranges]);
  assertEquals(parseRanges("0-5460 7000 16383"), [...ranges]);
  assertEquals([formatRanges([]), parseRanges("")], ["", []]);
  const slots = [0, 5_460, 5_461, 6_999, 7_000, 7_001, 16_382, 16_383];
  assertEquals(slots.filter((slot) => isIn(ranges, slot)), [0, 5_460, 7_000, 16_383]);
  assertEquals(isIn([], 0), false);
});
