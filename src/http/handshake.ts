/**
 * From an HTTP request to a session. Everything that can be refused is refused with an HTTP status before the handshake
 * is answered, where proxies and logs see it; and the subscription is confirmed before, so that from the moment a client
 * sees `open` no message to it can be missed. How a session begins and what it does then is not its business.
 */
import type { Identity } from "../auth/auth.ts";
import type { Broker } from "../broker/broker.ts";
import { parseCredentialFrame, parseIdentityFrame } from "../protocol/credentials.ts";
import { BrokerUnavailableError, messageOf, UnauthorizedError } from "../protocol/errors.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { PendingSession } from "../session/pending_session.ts";
import { WebSocketTransport } from "../session/websocket_transport.ts";
import { type AdmissionOptions, admit, draining, identityOf } from "./admission.ts";
import { type Offer, readOffer } from "./offer.ts";
import { problem, problemOf } from "./problem.ts";
import type { Turn, Turnstile } from "./turnstile.ts";

export interface UpgradeOptions extends AdmissionOptions {
  turnstile: Turnstile;
  broker: Pick<Broker, "unavailable">;
  /** Seconds of silence from the client after which it is pinged and, half of that later, closed. */
  idleTimeoutS: number;
  /** Seconds a raw client has to say who it is. */
  identityTimeoutS: number;
}

/** Where sockets connect. */
export const SOCKET_PATHS: ReadonlySet<string> = new Set(["/", "/ws"]);

/** Whether the client asks for a WebSocket. */
export function wantsUpgrade(request: Request): boolean {
  return request.headers.get("upgrade")?.toLowerCase() === "websocket";
}

/**
 * Answers a request for a WebSocket: with 101, or with a problem.
 * @param peer Address at the other end of the connection.
 */
export async function upgrade(request: Request, peer: string, options: UpgradeOptions): Promise<Response> {
  const { limits } = options;
  const url = new URL(request.url);
  const addressKey = limits.addressKeyOf(request, peer);
  const refusal = refuse(request, url, options) ?? limits.refuse(addressKey);
  if (refusal) return refusal;
  const offer = readOffer(request, url);
  if (offer instanceof Response) return offer;
  try {
    const identity = await identityOf(request, offer, options);
    if (identity instanceof Response) return identity;
    return identity
      ? await openKnown(request, identity, offer, addressKey, options)
      : await openNameless(request, addressKey, options);
  } catch (error) {
    const answer = problemOf(error);
    if (answer) return answer;
    throw error;
  }
}

/** What can be refused without knowing who it is. */
function refuse(request: Request, url: URL, options: UpgradeOptions): Response | undefined {
  if (!SOCKET_PATHS.has(url.pathname)) {
    return problem("not_found", `Sockets connect at ${[...SOCKET_PATHS].join(" or ")}`);
  }
  if (request.method !== "GET") {
    return problem("method_not_allowed", "A WebSocket handshake must be a GET request", { allow: "GET" });
  }
  if (request.headers.get("sec-websocket-version") !== "13") {
    return problem("upgrade_required", "Only WebSocket version 13 is spoken here", {
      "sec-websocket-version": "13",
    });
  }
  if (!/^[A-Za-z0-9+/]{22}==$/.test(request.headers.get("sec-websocket-key") ?? "")) {
    return problem("invalid_handshake", "Sec-WebSocket-Key must be 16 bytes in base64");
  }
  if (options.isDraining()) return draining();
  return undefined;
}

/** The session is opened before the handshake is answered. */
async function openKnown(
  request: Request,
  identity: Identity,
  offer: Offer,
  addressKey: string,
  options: UpgradeOptions,
): Promise<Response> {
  const { turnstile } = options;
  const { signal } = request;
  const { isFramed, pingS } = offer;
  const transport = new WebSocketTransport(isFramed, options.sessions.limits.maxBufferedBytes);
  let turn: Turn | undefined;
  try {
    return await admit({ transport, identity, addressKey, asked: offer, signal }, options, {
      async wait() {
        const passing = turnstile.pass(addressKey, signal);
        turn = passing instanceof Promise ? await passing : passing;
      },
      answer() {
        // A client that wants to be left alone for longer is not to be woken by the WebSocket's own pings either.
        const idleTimeout = Math.max(options.idleTimeoutS, pingS ?? 0);
        const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout });
        // Not through the `protocol` option: it splits the offer at ", " only, and throws for "a,b".
        if (isFramed) response.headers.set("sec-websocket-protocol", SUBPROTOCOL);
        attach(transport, socket, turn!, signal);
        return response;
      },
    });
  } catch (error) {
    if (error instanceof TypeError) return problem("invalid_handshake", messageOf(error));
    throw error;
  } finally {
    if (transport.state === "unanswered") {
      turn?.end();
      if (signal.aborted) turnstile.left(addressKey);
    }
  }
}

/** Only here is the session opened after the handshake: before the first frame nobody knows whose it is. */
async function openNameless(
  request: Request,
  addressKey: string,
  options: UpgradeOptions,
): Promise<Response> {
  const { auth, limits, sessions } = options;
  const reason = options.broker.unavailable();
  if (reason !== undefined) throw new BrokerUnavailableError(reason);
  let turn: Turn;
  try {
    turn = await options.turnstile.pass(addressKey, request.signal);
  } catch {
    return new Response(null, { status: 400 });
  }
  const noRoom = options.isDraining() ? draining() : limits.noRoom(addressKey);
  if (noRoom) {
    turn.end();
    return noRoom;
  }
  let upgraded: Deno.WebSocketUpgrade;
  try {
    upgraded = Deno.upgradeWebSocket(request, { idleTimeout: options.idleTimeoutS });
  } catch (error) {
    turn.end();
    return problem("invalid_handshake", messageOf(error));
  }
  const transport = new WebSocketTransport(false, options.sessions.limits.maxBufferedBytes);
  const pending = new PendingSession(transport, sessions, {
    timeoutS: options.identityTimeoutS,
    identify(text) {
      const credential = parseCredentialFrame(text);
      if (credential) return auth.authenticate(credential);
      if (auth.isOpen) return { username: parseIdentityFrame(text, options.names) };
      throw new UnauthorizedError(
        `Names are not taken on trust here: the first frame must be {"token": "…"} or {"ticket": "…"}`,
      );
    },
    onIdentity(identity) {
      options.openSession(transport, identity, { addressKey }).then((session) => {
        if (session.state !== "opening") return;
        limits.makeRoom(identity);
        session.goLive();
      }, () => {}); // it has been closed, and told why
    },
  });
  sessions.registry.join(pending, addressKey);
  attach(transport, upgraded.socket, turn, request.signal);
  return upgraded.response;
}

/**
 * Gives a transport its socket. That it could not be answered Deno says by the request's signal only; the socket then
 * never opens, and never closes. Listened to from here on: without `no-legacy-abort` the upgrade itself fires it.
 */
function attach(transport: WebSocketTransport, socket: WebSocket, turn: Turn, signal: AbortSignal): void {
  transport.attach(socket, turn);
  signal.addEventListener("abort", () => transport.abandon(), { once: true });
}
