/**
 * Finds out why handshakes fail: browsers say of a refused one no more than that it failed. So the service is asked for
 * the same address by a plain GET, which it answers with a problem.
 *
 * A crowd whose service is in trouble must not ask all the time. A client that was never in asks at its first, second,
 * fourth, eighth failure and so on; one that was in, which is likely to come in again, only from its fourth on. Who would be
 * let in asks again at the next failure. A reason is told once, until a connection opens or another reason takes its place.
 */
import { messageOf, RefusedError } from "../protocol/errors.ts";
import type { Address } from "./address.ts";

/** The first failure at which a client asks that has been in. */
const PATIENT = 4;
/** What the service says to whom it would let in. */
const UPGRADE_REQUIRED = "upgrade_required";

export class Inquiry {
  readonly #onReason: (error: RefusedError) => void;
  readonly #timeoutMs: number;
  #failures = 0;
  #askAt = 1;
  #hasBeenIn = false;
  #told = "";
  /** Whether it was said last that it would be let in. */
  #isWelcome = false;
  #asking: AbortController | undefined;

  constructor(onReason: (error: RefusedError) => void, timeoutMs: number) {
    this.#onReason = onReason;
    this.#timeoutMs = timeoutMs;
  }

  /** A connection has opened. */
  opened(): void {
    this.stop();
    this.#failures = 0;
    this.#askAt = PATIENT;
    this.#hasBeenIn = true;
    this.#told = "";
    this.#isWelcome = false;
  }

  /**
   * A handshake has failed.
   * @param onBlocked The service would let it in. Where that is news that helps, it is no reason to tell anybody.
   */
  failed(address: Address, onBlocked: () => boolean): void {
    if (++this.#failures < this.#askAt && !this.#isWelcome) return;
    this.#askAt = 2 * this.#failures;
    void this.#ask(address, onBlocked);
  }

  /** What is being found out is of no use any more. */
  stop(): void {
    this.#asking?.abort();
    this.#asking = undefined;
  }

  async #ask(address: Address, onBlocked: () => boolean): Promise<void> {
    this.stop();
    const asking = this.#asking = new AbortController();
    const timer = setTimeout(() => asking.abort(), this.#timeoutMs);
    const reason = await reasonOf(address, asking.signal);
    clearTimeout(timer);
    if (this.#asking !== asking) return;
    this.#asking = undefined;
    const wasWelcome = this.#isWelcome;
    this.#isWelcome = reason?.code === UPGRADE_REQUIRED;
    if (reason === undefined) return;
    // It would be let in: so it was a moment too early, as when the service has just come back. Unless that is so again, at
    // the next failure, and always was.
    if (this.#isWelcome && (!wasWelcome || onBlocked() || this.#hasBeenIn)) return;
    if (reason.message === this.#told) return;
    this.#told = reason.message;
    this.#onReason(reason);
  }
}

/** Undefined when nothing can be found out, as where the network is down. Never rejects. */
async function reasonOf({ url, token }: Address, signal: AbortSignal): Promise<RefusedError | undefined> {
  const address = url.replace(/^ws/, "http");
  const headers: Record<string, string> = { accept: "application/problem+json" };
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  const common = { signal, cache: "no-store", credentials: "omit", redirect: "manual" } as const;
  try {
    return await read(await fetch(address, { ...common, headers }));
  } catch {
    const { origin } = (globalThis as { location?: { origin?: string } }).location ?? {};
    if (origin === undefined || signal.aborted) return undefined;
    const theirs = new URL(address).origin;
    if (origin === theirs) return undefined;
    try {
      // Tells whether anybody is there, and nothing more.
      await fetch(address, { ...common, mode: "no-cors", redirect: "follow" });
      return new RefusedError(
        `What answers at ${theirs} does not answer pages of ${origin}: add that to ` +
          "USERWIRE_ALLOWED_ORIGINS; the service's log says more",
        "origin_not_allowed",
        undefined,
      );
    } catch {
      return undefined;
    }
  }
}

async function read(response: Response): Promise<RefusedError> {
  const { status, headers } = response;
  const kind = headers.get("content-type") ?? "no content type";
  if (kind.startsWith("application/problem+json")) {
    try {
      const { code, detail } = await response.json() as { code: string; detail: string };
      return new RefusedError(`The service refuses to connect: ${detail}`, code, status);
    } catch (error) {
      return strange(`a problem that can't be read (${messageOf(error)})`, status);
    }
  }
  // It may be aborted meanwhile.
  response.body?.cancel().catch(() => {});
  // A browser shows nothing of a redirection that it does not follow.
  return strange(
    status === 0 || (status >= 300 && status < 400) ? "a redirection" : `${status}, ${kind}`,
    status,
  );
}

function strange(what: string, status: number): RefusedError {
  // What it makes up for a network that is not there looks like a server's answer.
  // Node 20 has no navigator.
  const { serviceWorker } = (globalThis.navigator ?? {}) as { serviceWorker?: { controller: unknown } };
  const worker = serviceWorker?.controller ? "this page's service worker, " : "";
  return new RefusedError(
    `No Userwire answers at that address, but something else, with ${what}: ${worker}a proxy, the login page of a ` +
      "network, or another server",
    "not_userwire",
    status || undefined,
  );
}
