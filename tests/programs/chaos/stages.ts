/** The worlds, each with the faults that can happen in it. */
import { CLUSTER_FAULTS } from "./clusters.ts";
import { COMPANY_FAULTS } from "./company.ts";
import { FAILOVER_FAULTS } from "./failovers.ts";
import { NODE_FAULTS, REDIS_FAULTS } from "./faults.ts";
import { APPEND_ONLY_FAULTS, SNAPSHOT_FAULTS } from "./restarts.ts";
import { SENTINEL_FAULTS } from "./sentinels.ts";
import type { Stage } from "./stage.ts";

/** By what the nodes are on: one Redis, or one that is reached by a proxy and has a replica; Sentinels; a cluster. */
export const STAGES: Readonly<Record<"one" | "sentinel" | "cluster", readonly Stage[]>> = {
  one: [
    {
      name: "one Redis with snapshots",
      appendOnly: false,
      kind: "one",
      faults: { ...NODE_FAULTS, ...REDIS_FAULTS, ...SNAPSHOT_FAULTS, ...COMPANY_FAULTS },
    },
    {
      name: "one Redis with an append-only file",
      appendOnly: true,
      kind: "one",
      faults: APPEND_ONLY_FAULTS,
    },
    { name: "a master with a replica", appendOnly: "by chance", kind: "replicated", faults: FAILOVER_FAULTS },
  ],
  sentinel: [{
    name: "a master with a replica and three Sentinels",
    appendOnly: false,
    kind: "sentinel",
    faults: { ...NODE_FAULTS, ...SENTINEL_FAULTS },
  }],
  cluster: [{
    name: "a cluster of three masters, each with a replica",
    appendOnly: true,
    kind: "cluster",
    faults: { ...NODE_FAULTS, ...CLUSTER_FAULTS },
  }],
};

/**
 * The stages in which faults of these names happen, each with those only.
 * @param redis What the nodes are on.
 * @param names Parts of names; none stands for all faults.
 * @throws {Error} when no fault has a name.
 */
export function stagesOf(redis: keyof typeof STAGES, names: readonly string[]): Stage[] {
  const stages = STAGES[redis];
  if (names.length === 0) return [...stages];
  const all = stages.flatMap(({ faults }) => Object.keys(faults));
  for (const name of names) {
    if (!all.some((fault) => fault.includes(name))) {
      throw new Error(`No fault is called "${name}". There are:\n${all.join("\n")}`);
    }
  }
  return stages.flatMap((stage) => {
    const faults = Object.entries(stage.faults).filter(([fault]) =>
      names.some((name) => fault.includes(name))
    );
    return faults.length > 0 ? [{ ...stage, faults: Object.fromEntries(faults) }] : [];
  });
}
