/** What an answer of the service counts, and how that is said. */

/** A number with what it counts: with shared subscriptions a service counts nodes. */
export interface Counted {
  readonly count: number;
  readonly unit: string;
}

export const UNITS: ReadonlyMap<string, string> = new Map([["sockets", "socket"], ["nodes", "node"]]);

/** The number of an answer with what it counts; undefined when there is none. */
export function countedIn(answer: Readonly<Record<string, unknown>>): Counted | undefined {
  for (const [key, unit] of UNITS) {
    const count = answer[key];
    if (typeof count === "number") return { count, unit };
  }
  return undefined;
}

/** A number with its unit, in words. */
export function inWords({ count, unit }: Counted): string {
  return `${count} ${count === 1 ? unit : `${unit}s`}`;
}
