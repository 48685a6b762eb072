/**
 * What a case is played on: a server of its own, and the program under test, which it is told about by its environment.
 * A wait ends when what was waited for is there, when the program has done something else instead, or when its time is
 * up; the last two throw `BrokenRule`, with what was seen.
 */
import { Bell, DeadlineError } from "../testkit/deadline.ts";
import { Peer } from "./peer.ts";
import type { Program, StartProgram } from "./program.ts";

/** A program that is started may have to be compiled first. */
const START_MS = 60_000;
/** As the protocol has them, in milliseconds. */
const BASE_MS = 500;
const LONGEST_MS = 30_000;

/** What a service says to a question when it would let in who asks, and when it would not. */
const LET_IN = '{"code":"upgrade_required","detail":"It would be let in"}';
const REFUSED = '{"code":"refused","detail":"As the handshake was"}';

/** The program does not do what the rule says. */
export class BrokenRule extends Error {
  override readonly name = "BrokenRule";
}

export interface StageOptions {
  readonly start: StartProgram;
  /** What the program is told to multiply its times by. */
  readonly pace: number;
  /** How long a program may take for what it does at once, in milliseconds. */
  readonly patienceMs: number;
}

/** How the case wants the program to say who it is. */
export type Identity = "user" | "token";

export class Stage implements AsyncDisposable {
  readonly pace: number;
  readonly patienceMs: number;
  /** Tokens that were given out, in order. */
  readonly tokens: string[] = [];
  /** What the program is to ask the backend for, from its start on. */
  requests: readonly { op: string; data?: unknown }[] = [];
  readonly #options: StageOptions;
  readonly #listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  readonly #bell = new Bell();
  readonly #peers: Peer[] = [];
  readonly #conns = new Set<Deno.TcpConn>();
  #taken = 0;
  #program: Program | undefined;

  constructor(options: StageOptions) {
    this.#options = options;
    this.pace = options.pace;
    this.patienceMs = options.patienceMs;
    void this.#listen();
  }

  /** Handshakes that came. */
  get attempts(): number {
    return this.#peers.length;
  }

  /** Starts the program; resolves with its first handshake. */
  start(identity: Identity = "user", user = "alice"): Promise<Peer> {
    const url = `http://127.0.0.1:${this.#listener.addr.port}`;
    this.#program = this.#options.start({
      USERWIRE_URL: url,
      USERWIRE_PACE: `${this.pace}`,
      ...(this.requests.length > 0 && { USERWIRE_REQUESTS: JSON.stringify(this.requests) }),
      ...(identity === "user" ? { USERWIRE_USER: user } : { USERWIRE_TOKEN_URL: `${url}/token` }),
    }, () => this.#bell.ring());
    return this.handshake(START_MS);
  }

  /** Starts the program and lets it in. */
  async open(hi: Record<string, unknown> = { pos: "e.0" }, identity: Identity = "user"): Promise<Peer> {
    const peer = await this.start(identity);
    peer.accept();
    peer.hi(hi);
    return peer;
  }

  /**
   * The next handshake, which the case answers.
   * @param ms Within which it must come; the longest that the protocol lets a client wait, if not given.
   */
  async handshake(ms = this.longestWaitMs(0) + this.patienceMs): Promise<Peer> {
    await this.#until(() => this.#peers.length > this.#taken, "to connect", ms, {
      instead: () => this.#program!.hasEnded ? "it has ended" : undefined,
    });
    return this.#peers[this.#taken++]!;
  }

  /** Lets the next handshake in, and says `hi`. */
  async reopen(hi: Record<string, unknown> = { pos: "e.0" }): Promise<Peer> {
    const peer = await this.handshake();
    peer.accept();
    peer.hi(hi);
    return peer;
  }

  /** The longest that a client may wait after so many failures, in milliseconds. */
  longestWaitMs(failures: number): number {
    return Math.min(LONGEST_MS, BASE_MS * 2 ** failures) * this.pace;
  }

  /** Resolves when the program has written just these lines since its start. */
  async wrote(...lines: Record<string, unknown>[]): Promise<void> {
    const expected = lines.map(essence);
    const written = () => this.#program!.lines.map((line) => essence(line));
    const strange = () => {
      const lines = written();
      const wrong = lines.slice(0, expected.length).findIndex((line, i) => line !== expected[i]);
      return wrong === -1
        ? undefined
        : `it wrote ${short(lines[wrong])} in place of ${short(expected[wrong])}`;
    };
    await this.#until(
      () => written().length >= expected.length,
      `to write ${expected.length} lines`,
      undefined,
      {
        instead: () => strange() ?? (this.#program!.hasEnded ? "it has ended" : undefined),
      },
    );
    // The last one may be wrong, too.
    const fault = strange();
    this.expect(fault === undefined, fault ?? "");
  }

  /** Resolves when the program has ended by itself, and has not come back before. */
  async ends(): Promise<void> {
    await this.#until(() => this.#program!.hasEnded, "to end", undefined, {
      instead: () => this.#peers.length > this.#taken ? "it came back" : undefined,
    });
  }

  /** Resolves when it is so; what the program does meanwhile does not matter. */
  until(condition: () => boolean, what: string, ms?: number): Promise<void> {
    return this.#until(condition, what, ms, {});
  }

  /** Lets time pass in which the program must do nothing. */
  async stays(ms: number): Promise<void> {
    let isOver = false;
    const timer = setTimeout(() => {
      isOver = true;
      this.#bell.ring();
    }, ms);
    const instead = () =>
      this.#peers.length > this.#taken
        ? "it has connected anew"
        : this.#program!.hasEnded
        ? "it has ended"
        : undefined;
    try {
      await this.#until(() => isOver, "to stay connected", ms + START_MS, { instead });
    } finally {
      clearTimeout(timer);
    }
  }

  /** @throws {BrokenRule} */
  expect(condition: boolean, otherwise: string): void {
    if (!condition) throw new BrokenRule(otherwise);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program?.end();
    this.#listener.close();
    for (const conn of this.#conns) {
      try {
        conn.close();
      } catch {
        // It is closed.
      }
    }
    this.#bell.ring();
  }

  async #until(
    condition: () => boolean,
    what: string,
    ms = this.patienceMs,
    { instead }: { instead?: () => string | undefined },
  ): Promise<void> {
    const met = () => {
      const other = instead?.();
      if (condition()) return true;
      if (other !== undefined) throw new BrokenRule(`it was to ${what.replace(/^to /, "")}: ${other}`);
      return false;
    };
    try {
      await this.#bell.until(met, what, ms);
    } catch (error) {
      if (!(error instanceof DeadlineError)) throw error;
      const trouble = this.#program!.trouble.trim();
      throw new BrokenRule(
        `it was ${what}, and did not within ${Math.round(ms)} ms` +
          (trouble === "" ? "" : `; it said: ${trouble.slice(-500)}`),
      );
    }
  }

  async #listen(): Promise<void> {
    for await (const conn of this.#listener) {
      this.#conns.add(conn);
      void this.#receive(conn);
    }
  }

  async #receive(conn: Deno.TcpConn): Promise<void> {
    const peer = await Peer.receive(conn, () => this.#bell.ring());
    if (peer === undefined) return;
    if (peer.head.url.pathname === "/token") {
      // Its characters need both of the letters in which base64 and base64url differ.
      const token = `~~~???>>>${this.tokens.length + 1}`;
      this.tokens.push(token);
      return peer.refuse(200, { "content-type": "text/plain" }, token);
    }
    if (peer.isQuestion) {
      // Else a client would take its refusals for those of something in between, and sockets for blocked.
      const { refused } = this.#peers.at(-1) ?? {};
      const [status, text] = refused === undefined ? [426, LET_IN] as const : [refused, REFUSED] as const;
      return peer.refuse(status, { "content-type": "application/problem+json" }, text);
    }
    this.#peers.push(peer);
    this.#bell.ring();
  }
}

/** What of a line counts: a message's number and payload, all that is known of a gap, what became of a request. */
function essence(line: Record<string, unknown>): string {
  const { gap, bgap, from, to, count, refused, code, outcome, answer, broadcast, seq = null, base64 } = line;
  if (gap !== undefined || bgap !== undefined) return JSON.stringify({ gap, bgap, from, to, count });
  if (refused !== undefined) return JSON.stringify({ refused, code, outcome });
  const head = answer !== undefined ? { answer } : broadcast !== undefined ? { broadcast } : { seq };
  return JSON.stringify({ ...head, ...(base64 === undefined ? { data: sorted(line.data) } : { base64 }) });
}

/** The order of an object's fields does not count, and not every language keeps it. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  const fields = Object.entries(value).map(([name, value]): [string, unknown] => [name, sorted(value)]);
  return Object.fromEntries(fields.sort(([a], [b]) => a < b ? -1 : 1));
}

function short(text: string | undefined): string {
  if (text === undefined) return "nothing";
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}
