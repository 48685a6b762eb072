/** Plays the cases, many at a time, each on a stage of its own. */
import type { Case } from "./case.ts";
import { BROADCASTS } from "./cases/broadcasts.ts";
import { CLOSING } from "./cases/closing.ts";
import { CONNECTING } from "./cases/connecting.ts";
import { FRAMES } from "./cases/frames.ts";
import { POSITIONS } from "./cases/positions.ts";
import { REQUESTS } from "./cases/requests.ts";
import { BrokenRule, Stage, type StageOptions } from "./stage.ts";

export const CASES: readonly Case[] = [
  ...[...CONNECTING, ...FRAMES, ...POSITIONS, ...BROADCASTS, ...REQUESTS, ...CLOSING],
];

export interface Verdict {
  readonly case: Case;
  /** What the program did instead; undefined when it keeps the rule. */
  readonly fault: string | undefined;
}

export interface RunOptions extends StageOptions {
  /** How many programs run at a time. */
  readonly atOnce: number;
}

/** @returns A verdict for each case, in the order of the cases. */
export async function run(cases: readonly Case[], options: RunOptions): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  const left = [...cases.entries()];
  const work = async () => {
    // From the end, where the longest are.
    for (let next; (next = left.pop()) !== undefined;) {
      const [i, played] = next;
      verdicts[i] = { case: played, fault: await play(played, options) };
    }
  };
  await Promise.all(Array.from({ length: options.atOnce }, work));
  return verdicts;
}

async function play({ play }: Case, options: StageOptions): Promise<string | undefined> {
  await using stage = new Stage(options);
  try {
    await play(stage);
    return undefined;
  } catch (error) {
    if (error instanceof BrokenRule) return error.message;
    throw error;
  }
}
