/** The worlds, each with the faults that can happen in it. */
import { COMPANY_FAULTS } from "./company.ts";
import { FAILOVER_FAULTS } from "./failovers.ts";
import { NODE_FAULTS, REDIS_FAULTS } from "./faults.ts";
import { APPEND_ONLY_FAULTS, SNAPSHOT_FAULTS } from "./restarts.ts";
import type { Stage } from "./stage.ts";

export const STAGES: readonly Stage[] = [
  {
    name: "one Redis with snapshots",
    appendOnly: false,
    replicated: false,
    faults: { ...NODE_FAULTS, ...REDIS_FAULTS, ...SNAPSHOT_FAULTS, ...COMPANY_FAULTS },
  },
  {
    name: "one Redis with an append-only file",
    appendOnly: true,
    replicated: false,
    faults: APPEND_ONLY_FAULTS,
  },
  { name: "a master with a replica", appendOnly: "by chance", replicated: true, faults: FAILOVER_FAULTS },
];

/**
 * The stages in which faults of these names happen, each with those only.
 * @param names Parts of names; none stands for all faults.
 * @throws {Error} when no fault has a name.
 */
export function stagesOf(names: readonly string[]): Stage[] {
  if (names.length === 0) return [...STAGES];
  const all = STAGES.flatMap(({ faults }) => Object.keys(faults));
  for (const name of names) {
    if (!all.some((fault) => fault.includes(name))) {
      throw new Error(`No fault is called "${name}". There are:\n${all.join("\n")}`);
    }
  }
  return STAGES.flatMap((stage) => {
    const faults = Object.entries(stage.faults).filter(([fault]) =>
      names.some((name) => fault.includes(name))
    );
    return faults.length > 0 ? [{ ...stage, faults: Object.fromEntries(faults) }] : [];
  });
}
