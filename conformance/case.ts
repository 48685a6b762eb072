/** One rule of docs/protocol.md, and how a program shows that it keeps it. */
import type { Stage } from "./stage.ts";

/** What a client may do without: `--without` names it. */
export const PARTS = ["broadcasts", "requests"] as const;
export type Part = typeof PARTS[number];

export interface Case {
  /** What it is called in reports, and by `--only`. */
  readonly name: string;
  /** What the program must do. */
  readonly rule: string;
  /** The heading of docs/protocol.md that says so, as in its address. */
  readonly section: string;
  /** It is about an HTTP status, which browsers don't show their pages. */
  readonly needsStatus?: true;
  /** It is about what a client may do without. */
  readonly part?: Part;
  /** @throws {BrokenRule} */
  readonly play: (stage: Stage) => Promise<void>;
}
