/**
 * What the timelines of one cluster know of each other. A user's data wanders between masters, whole; the first script
 * that meets it on another master sees the name of a timeline that is not its own. Two things tell whether its numbers can be
 * trusted all the same: that the slot came here after the timeline began, and that no timeline of that name was ended.
 */
import type { ClusterMaster } from "../redis/commands.ts";

/** What a timeline has to know of the part of a cluster that it is of. */
export type Part = Pick<
  ClusterMaster,
  "tag" | "node" | "ids" | "slots" | "keeps" | "isOthers" | "handover"
>;

export class Lineage {
  readonly #ended = new Map<object, string>();
  #all = "";

  /** Names of timelines that were ended because data was set back, each followed by a comma. */
  get ended(): string {
    return this.#all;
  }

  /** One timeline says which were ended where it is. */
  learn(timeline: object, ended: string): void {
    if ((this.#ended.get(timeline) ?? "") === ended) return;
    this.#ended.set(timeline, ended);
    this.#all = [...this.#ended.values()].join("");
  }
}
