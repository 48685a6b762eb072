/**
 * The books of sends to groups: for each member what became of it, as of a message of their own, and whether the answer is the
 * sum of that. Nobody is told at which place a member has it, so a gap of kind `trimmed` explains as many of them as it has
 * numbers that were no direct message's.
 */
import type { Accepted, Book } from "./book.ts";
import type { Circumstances, Sent } from "./circumstances.ts";
import { at, fateOfCopies, type FateOptions, tried, type Violation } from "./fate.ts";

/** A send to a group that was answered 2xx. */
export interface ToGroup extends Sent {
  readonly n: number;
  readonly group: string;
  /** Members who have a client, and how many have none; nobody joined or left meanwhile. */
  readonly members: readonly string[];
  readonly absent: number;
  readonly answer: {
    readonly users: number;
    readonly online: number;
    /** With shared subscriptions nodes, once for each member. */
    readonly sockets: number;
    readonly stored: number;
    readonly unknown: number;
    readonly failed?: number;
  };
  /** Whether a send that is tried again may come twice to the members of a page: on a cluster. */
  readonly mayRepeatPage: boolean;
}

export interface GroupVerdict {
  readonly sends: number;
  /** Members with a client, of all sends together. */
  readonly members: number;
  readonly received: number;
  readonly told: number;
  /** Came twice, and may have: Redis had forgotten it, or a page of a cluster was sent again. */
  readonly again: number;
  /** Answers that were compared with all clients; with bounds, for some were disturbed; not at all. */
  readonly compared: number;
  readonly bounded: number;
  readonly excused: number;
  readonly violations: readonly Violation[];
}

export interface GroupJudgeOptions extends FateOptions {
  readonly books: ReadonlyMap<string, Book>;
  /** Sends to users: their places are known. */
  readonly direct: readonly Accepted[];
}

export function judgeGroups(sends: readonly ToGroup[], options: GroupJudgeOptions): GroupVerdict {
  const { circumstances, sendOf, books, direct } = options;
  const sum = { members: 0, received: 0, told: 0, again: 0, compared: 0, bounded: 0, excused: 0 };
  const violations: Violation[] = [];
  const spare = spareOf(books, direct);
  for (const send of sends) {
    const compared = compare(send, circumstances, violations);
    sum[compared]++;
    for (const user of send.members) {
      sum.members++;
      const book = books.get(user)!;
      const handed = book.handed.get(send.n);
      if (handed) {
        sum.received++;
        const fate = fateOfCopies(send, handed, circumstances);
        if (fate === "received") continue;
        const isRepeatedPage = send.mayRepeatPage && handed.length <= send.tries;
        if (fate === "doubled" && !isRepeatedPage) {
          violations.push({ kind: "doubled", text: `${describe(send)} came to ${user} at ${at(handed)}` });
        } else sum.again++;
      } else if (book.isToldAnywhere(send, sendOf) || takeSpare(spare.get(user)!, send)) {
        sum.told++;
      } else {
        const told = book.toldAround(send);
        violations.push({
          kind: "lost",
          text: `${describe(send)} was lost to ${user}, who was told: ${told}`,
        });
      }
    }
  }
  return { sends: sends.length, ...sum, violations };
}

/** Of each user the numbers that they were told to be missing and that no direct message has. */
function spareOf(books: ReadonlyMap<string, Book>, direct: readonly Accepted[]) {
  const taken = new Set(direct.map(({ user, epoch, seq }) => `${user} ${epoch}.${seq}`));
  return new Map(
    [...books].map((
      [user, book],
    ) => [user, book.trimmed.filter(({ place }) => !taken.has(`${user} ${place}`))]),
  );
}

function takeSpare(spare: { readonly atMs: number }[], { triedMs }: Sent): boolean {
  const index = spare.findIndex(({ atMs }) => atMs >= triedMs);
  if (index >= 0) spare.splice(index, 1);
  return index >= 0;
}

/** Whether the answer is the sum of its members: exactly, within bounds, or nobody can say. */
function compare(
  send: ToGroup,
  circumstances: Circumstances,
  violations: Violation[],
): "compared" | "bounded" | "excused" {
  const { members, absent, answer: { users, online, sockets, stored, unknown, failed = 0 } } = send;
  const violate = (what: string) =>
    violations.push({ kind: "miscounted", text: `${describe(send)}: ${what}` });
  if (failed > 0) violate("it was refused for some");
  if (users !== online + stored) violate("some are neither online nor stored");
  if (users + unknown + failed !== members.length + absent && !circumstances.mayBeForgotten(send)) {
    violate(`it has ${members.length + absent} members`);
  }
  if (online > members.length) violate(`only ${members.length} have a client`);
  if (!circumstances.isCalm(send) || circumstances.mayBeForgotten(send)) return "excused";
  const there = members.filter((user) => circumstances.isThere(user, send)).length;
  if (online < there) violate(`${there} clients were there all the time`);
  if (there < members.length) return "bounded";
  if (sockets !== there) violate(`${there} clients were there all the time`);
  return "compared";
}

function describe({ n, group, answer, ...sent }: ToGroup): string {
  return `${n} to ${group} (answered ${JSON.stringify(answer)}, ${tried(sent)})`;
}
