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
  readonly user: string;
  readonly startMs: number;
  readonly endMs: number;
  /** What the answer said. */
  readonly sockets: number;
}

export interface Judgement {
  readonly settled: number;
  readonly apart: number;
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
    for (const send of this.#sends) {
      const verdict = this.#judge(send, slowestMs);
      if (verdict.isSettled) settled++;
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
    if (settled < this.#sends.length * LEAST_SETTLED) {
      violations.push(`Only ${settled} of ${this.#sends.length} sends are settled: ask less of this machine`);
    }
    return { settled, apart: this.#sends.length - settled, offline, arrivals, violations };
  }

  #judge(send: Send, slowestMs: number): { isSettled: boolean; arrived: number; violations: string[] } {
    const { message, user, startMs, endMs, sockets } = send;
    let sure = 0, unsure = 0, missed = 0, arrived = 0, early = 0;
    let isSettled = true;
    for (
      const { isFramed, connectMs, openMs, leaveMs = Infinity, arrivals } of this.#sessions.get(user) ?? []
    ) {
      const has = arrivals.has(message);
      if (has) arrived++;
      const goneMs = leaveMs + (openMs === undefined ? LEAVE_OPENING_MS : LEAVE_MS) + slowestMs;
      if (connectMs > endMs || goneMs < startMs) continue;
      if (openMs === undefined || openMs > startMs || leaveMs < endMs) {
        unsure++;
        isSettled = false;
        // It starts where the history stood before its subscription: what was sent in between it gets from there.
        if (has && isFramed && (openMs === undefined || openMs > startMs)) early++;
      } else {
        sure++;
        if (leaveMs < endMs + ARRIVE_MS + slowestMs) isSettled = false;
        else if (!has) missed++;
      }
    }
    const violations: string[] = [];
    const about = `Message ${message} to ${user}, answered ${sockets}`;
    if (missed > 0) violations.push(`${about}: ${missed} sockets that were open did not get it`);
    if (isSettled && (sockets !== sure || sockets !== arrived)) {
      violations.push(`${about}: ${sure} sockets were open, ${arrived} got it`);
    } else if (arrived - early > sockets || sockets < sure || sockets > sure + unsure) {
      violations.push(`${about}: ${sure} to ${sure + unsure} sockets were open, ${arrived} got it`);
    }
    return { isSettled, arrived, violations };
  }
}
