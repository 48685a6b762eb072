/**
 * Who was connected when, what was sent to whom, and what arrived: the soak's bookkeeping, and the judgement over it.
 * It knows no sockets and no clock; all times are milliseconds of one clock, that of the soak.
 *
 * A send is *settled* when during it, and for a while around it, none of the user's sockets was opening or leaving:
 * then the answer, the number of open sockets and the number of arrivals must be one number. For the others, set
 * apart, there are bounds: no more arrivals than the answer says, but for framed sockets that were opening and have it
 * from the history, and the answer lies between the sockets that were surely there and those that may have been.
 *
 * How long that while is depends on the machine: a node that needed seconds to answer a send may need as long to
 * notice that a socket left.
 */

/** One socket of a user, from the first byte on. */
export interface Session {
  readonly user: string;
  /** It speaks frames, and has a history. */
  readonly isFramed: boolean;
  readonly connectMs: number;
  /** When `open` fired; undefined when it left before. */
  openMs?: number;
  /** When it began to leave. */
  leaveMs?: number;
  /** How often each message arrived. */
  readonly arrivals: Map<number, number>;
}

/** One send that was answered. */
export interface Send {
  readonly message: number;
  /** To whom, for people. */
  readonly to: string;
  /** One, those of a group, or everybody. */
  readonly users: readonly string[];
  readonly kind: "user" | "group" | "broadcast";
  readonly startMs: number;
  readonly endMs: number;
  /** What the answer said; missing where a node had not said it in time. */
  readonly sockets: number | undefined;
  /** Of a group: how many of its users had one. */
  readonly online?: number;
}

export interface Judgement {
  readonly settled: number;
  readonly apart: number;
  /** To groups and to everybody: all, and those that are settled. */
  readonly crowd: { readonly sends: number; readonly settled: number };
  /** Settled sends to nobody. */
  readonly offline: number;
  readonly arrivals: number;
  readonly violations: readonly string[];
}

/** How long a node and Redis may take to notice that a socket left, on top of the slowest send. */
const LEAVE_MS = 2_000;
/** The same where it left during the handshake: Deno says nothing, the service finds out by itself in a few seconds. */
const LEAVE_OPENING_MS = 8_000;
/** How long a message may be on its way after its send was answered, on top of the slowest send. */
export const ARRIVE_MS = 2_000;
/** With fewer settled sends than this, nothing much was proved. */
const LEAST_SETTLED = 0.1;

export class Ledger {
  readonly #sessions = new Map<string, Session[]>();
  readonly #sends: Send[] = [];
  readonly #violations: string[] = [];

  /** Writes down that a socket is being opened. */
  begin(user: string, isFramed: boolean, connectMs: number): Session {
    const session: Session = { user, isFramed, connectMs, arrivals: new Map() };
    const sessions = this.#sessions.get(user);
    if (sessions) sessions.push(session);
    else this.#sessions.set(user, [session]);
    return session;
  }

  arrived(session: Session, message: number): void {
    session.arrivals.set(message, (session.arrivals.get(message) ?? 0) + 1);
  }

  sent(send: Send): void {
    this.#sends.push(send);
  }

  /** Writes down what must never happen, as a sentence. */
  violation(what: string): void {
    this.#violations.push(what);
  }

  /** Judges all that was written down. To be called when everything has arrived. */
  judge(): Judgement {
    const violations = [...this.#violations];
    const slowestMs = this.#sends.reduce((most, { startMs, endMs }) => Math.max(most, endMs - startMs), 0);
    let settled = 0, offline = 0, arrivals = 0;
    const crowd = { sends: 0, settled: 0 };
    for (const send of this.#sends) {
      const verdict = this.#judge(send, slowestMs);
      if (send.kind !== "user") {
        crowd.sends++;
        if (verdict.isSettled) crowd.settled++;
      } else if (verdict.isSettled) settled++;
      if (verdict.isSettled && send.sockets === 0) offline++;
      arrivals += verdict.arrived;
      violations.push(...verdict.violations);
    }
    for (const session of [...this.#sessions.values()].flat()) {
      for (const [message, count] of session.arrivals) {
        if (count > 1) {
          violations.push(`Message ${message} arrived ${count} times at one socket of ${session.user}`);
        }
      }
    }
    const toUsers = this.#sends.length - crowd.sends;
    if (settled < toUsers * LEAST_SETTLED) {
      violations.push(`Only ${settled} of ${toUsers} sends are settled: ask less of this machine`);
    }
    return { settled, apart: toUsers - settled, crowd, offline, arrivals, violations };
  }

  #judge(send: Send, slowestMs: number): { isSettled: boolean; arrived: number; violations: string[] } {
    const { message, to, users, kind, sockets, online = 0 } = send;
    const all = users.map((user) => this.#sockets(send, user, slowestMs));
    const sum = (what: "sure" | "unsure" | "missed" | "arrived" | "early") =>
      all.reduce((total, sockets) => total + sockets[what], 0);
    const sure = sum("sure"), unsure = sum("unsure"), missed = sum("missed"), arrived = sum("arrived");
    const isSettled = all.every(({ isSettled }) => isSettled);
    const violations: string[] = [];
    const about = `Message ${message} to ${to}, answered ${sockets}`;
    if (missed > 0) violations.push(`${about}: ${missed} sockets that were open did not get it`);
    if (sockets !== undefined) {
      if (isSettled && (sockets !== sure || sockets !== arrived)) {
        violations.push(`${about}: ${sure} sockets were open, ${arrived} got it`);
      } else if (arrived - sum("early") > sockets || sockets < sure || sockets > sure + unsure) {
        violations.push(`${about}: ${sure} to ${sure + unsure} sockets were open, ${arrived} got it`);
      }
    }
    const surely = all.filter(({ sure }) => sure > 0).length;
    const atMost = all.filter(({ sure, unsure }) => sure + unsure > 0).length;
    if (kind === "group" && (online < surely || online > atMost)) {
      violations.push(`${about} of ${online} users: ${surely} to ${atMost} users had one`);
    }
    return { isSettled, arrived, violations };
  }

  /** What became of a send at the sockets of one user. */
  #sockets({ message, kind, startMs, endMs }: Send, user: string, slowestMs: number) {
    const sum = { sure: 0, unsure: 0, missed: 0, arrived: 0, early: 0, isSettled: true };
    for (
      const { isFramed, connectMs, openMs, leaveMs = Infinity, arrivals } of this.#sessions.get(user) ?? []
    ) {
      // Raw sockets get no broadcasts.
      if (kind === "broadcast" && !isFramed) continue;
      const has = arrivals.has(message);
      if (has) sum.arrived++;
      const goneMs = leaveMs + (openMs === undefined ? LEAVE_OPENING_MS : LEAVE_MS) + slowestMs;
      if (connectMs > endMs || goneMs < startMs) continue;
      if (openMs === undefined || openMs > startMs || leaveMs < endMs) {
        sum.unsure++;
        sum.isSettled = false;
        // It starts where the history stood before its subscription: what was sent in between it gets from there.
        if (has && isFramed && (openMs === undefined || openMs > startMs)) sum.early++;
      } else {
        sum.sure++;
        if (leaveMs < endMs + ARRIVE_MS + slowestMs) sum.isSettled = false;
        else if (!has) sum.missed++;
      }
    }
    return sum;
  }
}
