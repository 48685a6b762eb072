/** Positions as text: what is one, and that it comes back as it was written. */
import { assertEquals } from "@std/assert";
import { formatPlace, formatPosition, parsePosition, type Position } from "../../src/protocol/position.ts";

const POSITIONS: [text: string, position: Position][] = [
  ["e.0", { epoch: "e", seq: 0 }],
  ["aZ09_-.12", { epoch: "aZ09_-", seq: 12 }],
  [`${"a".repeat(32)}.1`, { epoch: "a".repeat(32), seq: 1 }],
  // The largest number, which an epoch's name has room for, too.
  [`aaaaaaaabbbbbbbb${"9".repeat(15)}.${"9".repeat(15)}`, {
    epoch: `aaaaaaaabbbbbbbb${"9".repeat(15)}`,
    seq: 999_999_999_999_999,
  }],
  ["e.7.AZaz09_-", { epoch: "e", seq: 7, tag: "AZaz09_-" }],
];

Deno.test("parsePosition reads what formatPosition writes", () => {
  for (const [text, position] of POSITIONS) {
    assertEquals(parsePosition(text), position);
    assertEquals(formatPosition(position), text);
    assertEquals(formatPlace(position), text.split(".").slice(0, 2).join("."));
  }
  assertEquals(formatPosition({ epoch: "e", seq: 7, tag: "" }), "e.7");
});

const NO_POSITIONS = [
  ...["", ".", "e", "e.", ".1", "e.-1", "e.+1", "e.1.", "e.1e3", "e.0x1", "e.1\n", "\ne.1", "é.1", "e/.1"],
  ...["e.1.short12", "e.1.longer890", "e.1.eight..8", "e.1.AZaz09_-.", "e.1.AZaz09_-\n"],
  `${"a".repeat(33)}.1`,
  `e.${"1".repeat(16)}`, // a number of that length is not exact any more
];

Deno.test("parsePosition takes nothing else", () => {
  for (const text of NO_POSITIONS) assertEquals(parsePosition(text), undefined, JSON.stringify(text));
});
