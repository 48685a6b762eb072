/** For tests that open what goes to Redis by itself, without a service around it. */
import { assertEquals } from "@std/assert";
import type { FirstAttempt } from "../src/redis/commands.ts";
import { stretched } from "./deadline.ts";

const WAIT_MS = 20_000;

/** What says how its first attempt to connect ends. */
interface Attempting {
  firstAttempt(withinMs: number): Promise<FirstAttempt>;
}

/** Resolves when all of them are connected. @throws {AssertionError} with what became of one that is not. */
export async function connected(...attempting: readonly Attempting[]): Promise<void> {
  const found = await Promise.all(attempting.map((one) => one.firstAttempt(stretched(WAIT_MS))));
  for (const attempt of found) assertEquals(attempt, { outcome: "ready" });
}
