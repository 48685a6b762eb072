/**
 * Names: of epochs, which say where they come from, and of messages, the tags. Each message's tag begins as the name of its
 * epoch does.
 */
import { base64urlOf } from "../protocol/base64.ts";
import { EPOCH_MARK_LENGTH } from "../protocol/envelope.ts";
import type { Position } from "../protocol/position.ts";

/**
 * A tag for a message: what tells its epoch from others, then something random.
 * @param random At least 8 random characters.
 */
export function tagOf(epoch: string, random: string): string {
  return epoch.slice(0, EPOCH_MARK_LENGTH) + random.slice(EPOCH_MARK_LENGTH, 2 * EPOCH_MARK_LENGTH);
}

/** Characters of the part of an epoch's name that is its own. */
const OWN_LENGTH = 8;

/** Names made at one time: to ask for random bytes costs the same whether they are six or some thousand. */
const STOCK = 512;
let stock = "";
let taken = 0;

/** A name for a new epoch: short, since it travels with each position, and not guessable from others. */
export function newEpoch(): string {
  return newEpochs(1);
}

/** As many names, one behind the other. */
export function newEpochs(count: number): string {
  const end = taken + count * OWN_LENGTH;
  if (end > stock.length) {
    const bytes = new Uint8Array(Math.max(count, STOCK) * OWN_LENGTH * 3 / 4);
    stock = base64urlOf(crypto.getRandomValues(bytes));
    taken = 0;
    return newEpochs(count);
  }
  return stock.slice(taken, taken = end);
}

/** The part of an epoch's name that is its own. */
export function ownNameOf(epoch: string): string {
  return epoch.slice(0, OWN_LENGTH);
}

/**
 * Where an epoch began that goes on from another: up to this number both have the same messages. Its name is made of its
 * own name, that of the other, and the number.
 * @returns Position whose epoch is the other's own name; undefined for an epoch that began from nothing.
 */
export function originOf(epoch: string): Position | undefined {
  const other = epoch.slice(OWN_LENGTH, 2 * OWN_LENGTH);
  const seq = epoch.slice(2 * OWN_LENGTH);
  return /^\d+$/.test(seq) ? { epoch: other, seq: Number(seq) } : undefined;
}
