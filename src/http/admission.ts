/**
 * Who gets a connection, whatever carries it: who the client is, by what it shows, and its session, which is opened before
 * the client is answered. Everything that is refused is refused with a problem.
 */
import type { Auth, Identity } from "../auth/auth.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import { messageOf } from "../protocol/errors.ts";
import { type NameRules, parseUsername } from "../protocol/username.ts";
import type { SessionContext } from "../session/context.ts";
import { type OpenSession, RefusedError } from "../session/open_session.ts";
import type { Session } from "../session/session.ts";
import type { Transport } from "../session/transport.ts";
import type { ConnectionLimits } from "./connection_limits.ts";
import { credentialIn } from "./credentials.ts";
import type { Offer } from "./offer.ts";
import { problem } from "./problem.ts";

export interface AdmissionOptions {
  sessions: SessionContext;
  openSession: OpenSession;
  auth: Auth;
  limits: ConnectionLimits;
  /** Whether `?token=` counts. */
  tokenInQuery: boolean;
  names: NameRules;
  isDraining(): boolean;
}

/** Who the client is; undefined for a raw one that says so in its first frame. */
export async function identityOf(
  request: Request,
  { subprotocols, isFramed, name }: Offer,
  options: AdmissionOptions,
): Promise<Identity | undefined | Response> {
  const { auth, names } = options;
  // In open mode a name is as good as anything: what else is shown could not make it truer.
  const isNamed = auth.isOpen && name !== null;
  const credential = isNamed ? undefined : credentialIn(request, subprotocols, options);
  if (credential) {
    const identity = await auth.authenticate(credential);
    // A client that says who it is and shows another's token is confused, and should learn it.
    if (name !== null && parseUsername(name, names) !== identity.username) {
      return problem("forbidden", `The ${credential.kind} is for another user than "username" says`);
    }
    return identity;
  }
  if (isNamed) return { username: parseUsername(name, names) };
  if (name !== null) {
    return problem("unauthorized", `Names are not taken on trust here: ${howToShow(auth)}`);
  }
  if (!isFramed) return undefined;
  return auth.isOpen
    ? problem("invalid_handshake", `Who is connecting? Add "?username=…" to the address`)
    : problem("unauthorized", `Who is connecting? ${howToShow(auth)}`);
}

/** As the end of a sentence. */
function howToShow({ takesTokens }: Auth): string {
  return takesTokens
    ? 'show a token in "Authorization: Bearer", in a subprotocol, or get a ticket from POST /v1/tickets'
    : "show a ticket from POST /v1/tickets, as ?ticket=… or where a token would stand";
}

export function draining(): Response {
  return problem("draining", "The node takes no more connections: connect to another");
}

/** A client that is known, and asks for a connection. */
export interface Guest {
  readonly transport: Transport;
  readonly identity: Identity;
  readonly addressKey: string;
  readonly asked: Pick<Offer, "resume" | "all" | "pingS">;
  /** Fires when it leaves before it was answered. */
  readonly signal: AbortSignal;
}

/** The last steps, when the session is open. */
export interface Door {
  /** Waits until it may be answered. */
  wait?(): Promise<void>;
  /** Gives the transport what carries it. */
  answer(): Response;
}

/** Opens the session, and answers. Throws what is no refusal, and then the session has ended. */
export async function admit(guest: Guest, options: AdmissionOptions, door: Door): Promise<Response> {
  const { transport, identity, addressKey, asked, signal } = guest;
  const { limits } = options;
  // It may have taken a while to find out who it is. From here to the join nobody can come in between.
  const noRoom = options.isDraining() ? draining() : limits.noRoom(addressKey);
  if (noRoom) return noRoom;
  const { resume, all, pingS } = asked;
  let session: Session | undefined;
  try {
    signal.throwIfAborted();
    session = await options.openSession(transport, identity, { addressKey, resume, all, pingS, signal });
    await door.wait?.();
    // Whoever has left meanwhile must not be counted until that shows.
    signal.throwIfAborted();
    if (session.state !== "opening") {
      return options.isDraining()
        ? draining()
        : problem("unauthorized", "The user's connections were closed while this one was opening");
    }
    limits.makeRoom(identity);
    return door.answer();
  } catch (error) {
    if (signal.aborted) {
      session?.gone(undefined);
      return new Response(null, { status: 400 });
    }
    session?.close({ code: CLOSE.overloaded.code, reason: messageOf(error) });
    if (!(error instanceof RefusedError)) throw error;
    return error.close === CLOSE.tooMany
      ? limits.tooMany(identity)
      : problem("unauthorized", "The token or ticket has been revoked: get a new one");
  }
}
