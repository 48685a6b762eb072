/**
 * Logs refused handshakes and calls, one line a minute for each reason and origin, or address. Browsers hide the status of
 * a refused handshake and blame CORS for a refused call, so an operator must find the reason here.
 */
import { addressKey, AddressRanges, clientAddress } from "../net/addresses.ts";
import type { Log } from "../log/log.ts";
import type { Problem, ProblemCode } from "./problem.ts";

/** How long the same refusal is not logged again, in milliseconds. */
const QUIET_MS = 60_000;
/** Most different refusals logged within a minute, and remembered. More are counted, and logged as one number. */
const MAX_REMEMBERED = 100;
/** Longest origin in a line; browsers know none that is longer, others may write anything. */
const MAX_ORIGIN_LENGTH = 300;

/** Problems of calls that are logged. The others are answers like any other, or are logged where they were found. */
const LOGGED_CALLS: ReadonlySet<ProblemCode> = new Set([
  "unauthorized",
  "forbidden",
  "origin_not_allowed",
  "misdirected",
  "upgrade_required",
  "too_many_connections",
  "too_many_requests",
  "headers_too_large",
  "full",
  // A backend that is at fault may not look at its answers.
  "invalid_username",
  "invalid_message",
  "idempotency_conflict",
]);
/** Problems of handshakes that are not logged here: they come to all clients at once, and their cause is logged. */
const QUIET_HANDSHAKES: ReadonlySet<ProblemCode> = new Set(["draining", "broker_unavailable", "internal"]);

export class RefusalLog {
  readonly #log: Log;
  readonly #trusted: AddressRanges;
  /** When each was logged, in that order, and how often it came since. */
  readonly #entries = new Map<string, { atMs: number; repeats: number }>();
  #uncounted = 0;

  constructor(log: Log, { trustedProxies }: { trustedProxies: readonly string[] }) {
    this.#log = log;
    this.#trusted = new AddressRanges(trustedProxies);
  }

  /** @param peer Address at the other end of the request's connection. */
  note(
    request: Request,
    peer: string,
    { code, detail, status, requestId }: Problem,
    isHandshake: boolean,
  ): void {
    if (isHandshake ? QUIET_HANDSHAKES.has(code) : !LOGGED_CALLS.has(code)) return;
    const address = clientAddress(peer, request.headers.get("x-forwarded-for"), this.#trusted);
    const origin = originIn(request);
    const key = `${code} ${isHandshake} ${origin ?? addressKey(address)}`;
    const nowMs = performance.now();
    const before = this.#entries.get(key);
    if (before !== undefined && nowMs - before.atMs < QUIET_MS) {
      before.repeats++;
      return;
    }
    this.#entries.delete(key);
    if (this.#entries.size >= MAX_REMEMBERED) {
      // The oldest goes when its room is needed, no sooner: when it comes again its line says how often it came.
      const [oldest, { atMs }] = this.#entries.entries().next().value!;
      if (nowMs - atMs < QUIET_MS) {
        this.#uncounted++;
        return;
      }
      this.#entries.delete(oldest);
    }
    this.#entries.set(key, { atMs: nowMs, repeats: 0 });
    if (this.#uncounted > 0) {
      this.#log.warn("refusals not logged one by one", { times: this.#uncounted });
      this.#uncounted = 0;
    }
    // Neither the address of the request nor its other headers: tokens may stand there.
    this.#log.warn(isHandshake ? "handshake refused" : "call refused", {
      code,
      status,
      origin,
      address,
      reason: detail,
      times_before: before?.repeats || undefined,
      request_id: requestId,
    });
  }
}

/** The origin without anything that is none, such as a password; undefined when there is none. */
function originIn({ headers }: Request): string | undefined {
  const given = headers.get("origin");
  if (given === null || given === "null") return given ?? undefined;
  // In lower case, as browsers write it: what else stands there may be somebody's token or password.
  const isOrigin = /^[a-z][a-z\d+.-]*:\/\/[a-z\d_.:[\]-]*$/.test(given) && given.length <= MAX_ORIGIN_LENGTH;
  return isOrigin ? given : "(not an origin)";
}
