/**
 * The id of a request: stands in its answer, in its problem and in the lines of the log that are about it. A caller that is
 * trusted may bring its own, so that one id leads through several services; others get one that nobody else has. Only a send
 * that was accepted, and brought none, is answered without: to say one would cost it a tenth of all it costs.
 */
import type { Auth } from "../auth/auth.ts";
import { AddressRanges } from "../net/addresses.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import { bearerOf } from "./credentials.ts";

export const REQUEST_ID_HEADER = "x-request-id";

/** What may stand in a log and in a header as it is; the ids of proxies and of tracing do. */
const FORM = /^[\w.:;=+/@-]{1,128}$/;

/** The id of one request, which is made up when somebody wants to know it. */
export class RequestId {
  /** Whether the request brought it. */
  readonly isGiven: boolean;
  #text: string | undefined;

  constructor(given: string | undefined) {
    this.isGiven = given !== undefined;
    this.#text = given;
  }

  get text(): string {
    return this.#text ??= crypto.randomUUID();
  }
}

export class RequestIds {
  readonly #auth: Pick<Auth, "isOpen" | "authorize">;
  readonly #trusted: AddressRanges;

  constructor(auth: Pick<Auth, "isOpen" | "authorize">, trustedProxies: readonly string[]) {
    this.#auth = auth;
    this.#trusted = new AddressRanges(trustedProxies);
  }

  /** @param info The request's connection: its address is looked up only where it matters, for that takes a microsecond. */
  of(request: Request, info: ConnectionInfo): RequestId {
    const given = request.headers.get(REQUEST_ID_HEADER);
    const isTaken = given !== null && FORM.test(given) && this.#isTrusted(request, info.remoteAddr.hostname);
    return new RequestId(isTaken ? given : undefined);
  }

  /** A proxy of ours, who shows a key, or anybody where everybody may do everything. */
  #isTrusted(request: Request, peer: string): boolean {
    if (this.#auth.isOpen || this.#trusted.has(peer)) return true;
    try {
      this.#auth.authorize(bearerOf(request), "any");
      return true;
    } catch {
      // No key, or one that is not known: the call itself says so, where it needs one.
      return false;
    }
  }
}
