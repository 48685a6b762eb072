/** The books of broadcasts: each client gets each of them once and in order, in numbers of their own, or is told of a gap. */
import type { Accepted, Book } from "./book.ts";
import type { Circumstances } from "./circumstances.ts";
import { at, describe, epochsOf, fateOf, isPlaceOf, type Violation } from "./fate.ts";

/** A broadcast that was answered 2xx. `sockets` is missing where a node did not say its number in time. */
export type Broadcast = Omit<Accepted, "user">;

export interface BroadcastVerdict {
  readonly sends: number;
  /** Clients, of all broadcasts together. */
  readonly clients: number;
  readonly received: number;
  readonly told: number;
  /** Came twice, and may have. */
  readonly again: number;
  readonly compared: number;
  readonly excused: number;
  readonly violations: readonly Violation[];
}

/** All of them have one numbering. */
const USER = "everybody";
/** A node that does not say its number within two seconds is not waited for. */
const UNHEARD_MS = 1_900;

export function judgeBroadcasts(
  sends: ReadonlyMap<number, Broadcast>,
  books: ReadonlyMap<string, Book>,
  circumstances: Circumstances,
): BroadcastVerdict {
  const sum = { clients: 0, received: 0, told: 0, again: 0, compared: 0, excused: 0 };
  const violations: Violation[] = [];
  const all = [...sends.values()].map((send): Accepted => ({ ...send, user: USER }));
  const epochsBegan = epochsOf(all);
  for (const accepted of all) {
    const about = describe(accepted);
    sum[compare(accepted, [...books.keys()], circumstances, violations) ? "compared" : "excused"]++;
    for (const [user, book] of books) {
      sum.clients++;
      const fate = fateOf(accepted, book, { circumstances, sendOf: (n) => sends.get(n) });
      const handed = book.handed.get(accepted.n);
      if (!handed) {
        if (fate !== "lost") sum.told++;
        else {
          const told = book.toldAround(accepted);
          violations.push({ kind: "lost", text: `${about} was lost to ${user}, who was told: ${told}` });
        }
        continue;
      }
      sum.received++;
      if (fate === "doubled") {
        violations.push({ kind: "doubled", text: `${about} came to ${user} at ${at(handed)}` });
      } else if (fate !== "received") sum.again++;
      if (circumstances.excuses(accepted, handed)) continue;
      if (!handed.some((place) => isPlaceOf(accepted, place, epochsBegan))) {
        violations.push({ kind: "misplaced", text: `${about} came to ${user} at ${at(handed)}` });
      }
    }
  }
  for (const [user, book] of books) {
    for (const fault of book.faults) {
      violations.push({ kind: "disordered", text: `${user}, of broadcasts, ${fault}` });
    }
    for (const n of book.handed.keys()) {
      if (sends.has(n)) continue;
      violations.push({ kind: "other", text: `${user} got the broadcast ${n}, which was never accepted` });
    }
  }
  return { sends: sends.size, ...sum, violations };
}

/** Compares an answer with the clients that were there; false when that can't be said. */
function compare(
  accepted: Accepted,
  users: readonly string[],
  circumstances: Circumstances,
  violations: Violation[],
): boolean {
  const { sockets, sentMs, answeredMs, tries } = accepted;
  const isThere = circumstances.isCalm(accepted) &&
    users.every((user) => circumstances.isThere(user, accepted));
  if (!isThere) return false;
  // Who tries again is told the number of nodes alone, and so is who had to wait too long.
  if (sockets === undefined && (tries > 1 || answeredMs - sentMs > UNHEARD_MS)) return false;
  if (sockets !== users.length) {
    violations.push({
      kind: "miscounted",
      text: `${describe(accepted)}: ${users.length} clients were there`,
    });
  }
  return true;
}
