/** What a doctor finds: one line each, and what to do where something is not as it should be. Pure. */

/** `ok`: as it should be. `warning`: it works, and may not one day. `fault`: it does not. */
export type State = "ok" | "warning" | "fault";

export interface Finding {
  /** What was looked at, in a word or two. */
  readonly check: string;
  readonly state: State;
  /** What was found, as a sentence without a full stop. */
  readonly says: string;
  /** What to do, as another. */
  readonly remedy?: string;
}

export function ok(check: string, says: string): Finding {
  return { check, state: "ok", says };
}

export function warning(check: string, says: string, remedy?: string): Finding {
  return { check, state: "warning", says, ...(remedy !== undefined && { remedy }) };
}

export function fault(check: string, says: string, remedy?: string): Finding {
  return { check, state: "fault", says, ...(remedy !== undefined && { remedy }) };
}

const MARKS = { ok: "✓", warning: "!", fault: "✗" } as const;

/** One line, and one more for what to do. */
export function inWords({ check, state, says, remedy }: Finding): string {
  return `${MARKS[state]} ${check}: ${says}\n${remedy === undefined ? "" : `    ${remedy}\n`}`;
}

/** 0 when all is as it should be, 1 with a warning, 2 with a fault. */
export function exitCodeOf(findings: readonly Finding[]): 0 | 1 | 2 {
  if (findings.some(({ state }) => state === "fault")) return 2;
  return findings.some(({ state }) => state === "warning") ? 1 : 0;
}
