/**
 * Hash slots: which part of a cluster a name belongs to. Pure.
 * Specification: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
 */
import { Buffer } from "node:buffer";

export const SLOTS = 16_384;

/** CRC-16/XMODEM, a byte at a time. */
const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1;
  return crc;
});

/** The slot of a key or of a channel: of what stands in its first braces, if that is not empty; else of all of it. */
export function slotOf(name: string): number {
  const open = name.indexOf("{");
  const close = open < 0 ? -1 : name.indexOf("}", open);
  const text = close > open + 1 ? name.slice(open + 1, close) : name;
  let crc = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 127) return slotOfBytes(Buffer.from(text));
    crc = crc << 8 & 0xffff ^ TABLE[crc >> 8 ^ code]!;
  }
  return crc % SLOTS;
}

function slotOfBytes(bytes: Uint8Array): number {
  let crc = 0;
  for (const byte of bytes) crc = crc << 8 & 0xffff ^ TABLE[crc >> 8 ^ byte]!;
  return crc % SLOTS;
}

/** A name in a slot, the same each time: the text with a number behind it. */
export function nameIn(slot: number, text: string): string {
  for (let number = 0;; number++) {
    const name = `${text}${number}`;
    if (slotOf(name) === slot) return name;
  }
}

/** Slots in a row, both ends included. */
export type SlotRange = readonly [first: number, last: number];

/** Writes ranges: "0-5460,7000". */
export function formatRanges(ranges: readonly SlotRange[]): string {
  return ranges.map(([first, last]) => first === last ? `${first}` : `${first}-${last}`).join(",");
}

/** Reads what `formatRanges` writes; also separated by blanks. */
export function parseRanges(text: string): SlotRange[] {
  return [...text.matchAll(/(\d+)(?:-(\d+))?/g)].map(([, first, last = first]) =>
    [Number(first), Number(last)] as const
  );
}

/** Whether a slot is in one of the ranges. */
export function isIn(ranges: readonly SlotRange[], slot: number): boolean {
  return ranges.some(([first, last]) => first <= slot && slot <= last);
}

/** What is in both. Each has its ranges in order. */
export function common(ones: readonly SlotRange[], others: readonly SlotRange[]): SlotRange[] {
  return ones.flatMap(([first, last]) =>
    others.map(([from, to]) => [Math.max(first, from), Math.min(last, to)] as const)
      .filter(([first, last]) => first <= last)
  );
}
