/**
 * Expiry, refresh and revocation of what let a session in: who its client has shown to be, and for how long that holds.
 * That is until the token ends, unless a fresh one takes its place, or until it is revoked; then the session is ended.
 * How a session begins is not its business: the first identity has been checked.
 *
 * A revocation may be missed: its order came while the subscription was lost, or for a token that was still being
 * verified. Then the store of revocations is asked.
 */
import { type Identity, isMeant } from "../auth/auth.ts";
import {
  BrokerUnavailableError,
  KeysUnavailableError,
  messageOf,
  UnauthorizedError,
} from "../protocol/errors.ts";
import { CLOSE, type CloseOrder, type CloseReason } from "../protocol/close_codes.ts";
import type { ReplyFrame } from "../protocol/frames.ts";
import type { SessionContext } from "./context.ts";

/** What it needs of the session. */
export interface WatchedSession {
  readonly id: string;
  readonly username: string;
  readonly state: "opening" | "live" | "closing" | "closed";
  /** Only while it is live. */
  send(frame: ReplyFrame): void;
  close(reason: CloseReason): void;
}

/** Whether the identity was shown, by a token or a ticket, and not just said. */
export function isShown({ exp, iat }: Identity): boolean {
  return exp !== undefined || iat !== undefined;
}

export class CredentialWatch {
  readonly #session: WatchedSession;
  readonly #context: Pick<SessionContext, "log" | "auth">;
  /** What the client was let in by; undefined where it only said a name, in open mode. */
  #identity: Identity | undefined;
  #isRefreshing = false;
  /** An order to close may have been missed. */
  #mayBeRevoked = false;

  constructor(session: WatchedSession, identity: Identity, context: Pick<SessionContext, "log" | "auth">) {
    this.#session = session;
    if (isShown(identity)) this.#identity = identity;
    this.#context = context;
  }

  /** Unix seconds at which the token ends, if there is one. */
  get exp(): number | undefined {
    return this.#identity?.exp;
  }

  /** Puts a fresh token in the place of the one that ends, and answers the request. Never rejects. */
  async refresh(token: string, id: string): Promise<void> {
    const session = this.#session;
    const { auth, log } = this.#context;
    const refuse = (err: string) => {
      if (session.state === "live") session.send({ t: "re", id, ok: false, err });
    };
    if (this.#isRefreshing) return refuse("A token is being verified already: wait for its answer");
    this.#isRefreshing = true;
    try {
      const identity = await auth.authenticate({ kind: "token", text: token });
      if (await auth.isRevoked(identity)) {
        throw new UnauthorizedError("The token has been revoked: get a new one");
      }
      if (session.state !== "live") return;
      if (identity.username !== session.username) {
        refuse("The token is for another user");
        return session.close(CLOSE.forbidden);
      }
      this.#identity = identity;
      session.send({ t: "re", id, ok: true, data: { exp: identity.exp } });
    } catch (error) {
      const isExpected = error instanceof UnauthorizedError || error instanceof KeysUnavailableError ||
        error instanceof BrokerUnavailableError;
      if (!isExpected) log.error("token not verified", { conn: session.id, reason: messageOf(error) });
      refuse(isExpected ? error.message : "The token could not be verified");
    } finally {
      this.#isRefreshing = false;
    }
  }

  /** An order to close arrived: for every session of the user, or for those that were let in by what is revoked. */
  onCloseOrder({ revoked, code, reason }: CloseOrder): void {
    if (revoked === undefined || (this.#identity && isMeant(revoked, this.#identity))) {
      return this.#session.close({ code, reason });
    }
    // The token that is being verified may have been looked up just before it was revoked.
    if (this.#isRefreshing) this.#mayBeRevoked = true;
  }

  /** Orders may have been missed: asks, with the next tick, whether one was. */
  recheck(): void {
    this.#mayBeRevoked = true;
  }

  /** Once a second, while the session is live. */
  tick(): void {
    const identity = this.#identity;
    if (!identity) return;
    // Not at `exp`: who was let in by a clock that is off is not thrown out by it either.
    if (identity.takenUntil !== undefined && Date.now() >= identity.takenUntil * 1_000) {
      return this.#session.close(CLOSE.tokenExpired);
    }
    // A token that is being verified is asked about when it has taken its place.
    if (this.#mayBeRevoked && !this.#isRefreshing) this.#ask(identity);
  }

  /** Asked again with the next tick when there was no answer. */
  #ask(identity: Identity): void {
    this.#mayBeRevoked = false;
    this.#context.auth.isRevoked(identity).then((isRevoked) => {
      if (isRevoked) this.#session.close(CLOSE.revoked);
    }, () => {
      this.#mayBeRevoked = true;
    });
  }
}
