/**
 * From an HTTP request to a connection. Everything that can be refused is refused with an HTTP status before the
 * handshake is answered, where proxies and logs see it; and the subscription is confirmed before, so that from
 * the moment a client sees `open` no message to it can be missed.
 */
import type { Auth, Identity } from "../auth/auth.ts";
import type { Broker } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import { Connection } from "../session/session.ts";
import { WebSocketTransport } from "../session/websocket_transport.ts";
import type { Connections } from "../session/registry.ts";
import { BrokerUnavailableError, messageOf, UnauthorizedError } from "../protocol/errors.ts";
import { Newcomer } from "../session/pending_session.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import {
  BEARER_SUBPROTOCOL,
  parseCredentialFrame,
  parseIdentityFrame,
  parseOffer,
} from "../protocol/credentials.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { parsePosition, type Position } from "../protocol/position.ts";
import { channelOf, type NameRules, parseUsername } from "../protocol/username.ts";
import { Replay } from "../session/replay.ts";
import type { Admission } from "./connection_limits.ts";
import { credentialIn } from "./credentials.ts";
import { problem, problemOf } from "./problem.ts";
import type { Turn, Turnstile } from "./turnstile.ts";

export interface UpgradeOptions {
  broker: Broker;
  history: History;
  /** Messages that a resume replays at most. */
  maxReplay: number;
  connections: Connections;
  auth: Auth;
  admission: Admission;
  turnstile: Turnstile;
  /** Whether `?token=` counts. */
  tokenInQuery: boolean;
  channelPrefix: string;
  names: NameRules;
  /** Seconds of silence from the client after which it is pinged and, half of that later, closed. */
  idleTimeoutS: number;
  /** Seconds a raw client has to say who it is. */
  identityTimeoutS: number;
  isDraining(): boolean;
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
  const { auth, admission } = options;
  const url = new URL(request.url);
  const place = admission.placeOf(request, peer);
  const refusal = refuse(request, url, options) ?? admission.refuse(place);
  if (refusal) return refusal;

  const offer = parseOffer(request.headers.get("sec-websocket-protocol"));
  const isFramed = offer.includes(SUBPROTOCOL);
  if (!isFramed && offer.some((name) => !name.startsWith(BEARER_SUBPROTOCOL))) {
    return problem(
      "invalid_handshake",
      `No known subprotocol was offered: offer "${SUBPROTOCOL}", or none for raw mode`,
    );
  }
  // A browser fails when none of the subprotocols it offered is taken, so a token in one needs the other.
  if (!isFramed && offer.length > 0) {
    return problem("invalid_handshake", `A token among the subprotocols needs "${SUBPROTOCOL}" beside it`);
  }
  const from = url.searchParams.get("resume");
  const resume = from === null ? undefined : parsePosition(from);
  if (from !== null && resume === undefined) {
    return problem("invalid_handshake", `"resume" must be a position as "hi" gave it, such as Zk3vQ9aB.17`);
  }
  const name = url.searchParams.get("username");
  let identity: Identity;
  try {
    // In open mode a name is as good as anything: what else is shown could not make it truer.
    const isNamed = auth.isOpen && name !== null;
    const credential = isNamed ? undefined : credentialIn(request, offer, options);
    if (credential) {
      identity = await auth.authenticate(credential);
      // A client that says who it is and shows another's token is confused, and should learn it.
      if (name !== null && parseUsername(name, options.names) !== identity.username) {
        return problem("forbidden", `The ${credential.kind} is for another user than "username" says`);
      }
    } else if (name !== null) {
      if (!auth.isOpen) {
        return problem("unauthorized", `Names are not taken on trust here: ${howToShow(auth)}`);
      }
      identity = { username: parseUsername(name, options.names) };
    } else if (!isFramed) {
      return await openNewcomer(request, place, options);
    } else if (auth.isOpen) {
      return problem("invalid_handshake", `Who is connecting? Add "?username=…" to the address`);
    } else {
      return problem("unauthorized", `Who is connecting? ${howToShow(auth)}`);
    }
  } catch (error) {
    const answer = problemOf(error);
    if (answer) return answer;
    throw error;
  }
  return await openConnection(request, identity, { ...options, place, isFramed, resume });
}

/** As the end of a sentence. */
function howToShow({ takesTokens }: Auth): string {
  return takesTokens
    ? 'show a token in "Authorization: Bearer", in a subprotocol, or get a ticket from POST /v1/tickets'
    : "show a ticket from POST /v1/tickets, as ?ticket=… or where a token would stand";
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

function draining(): Response {
  return problem("draining", "The instance is shutting down: connect to another");
}

async function openConnection(
  request: Request,
  identity: Identity,
  options: UpgradeOptions & { place: string; isFramed: boolean; resume: Position | undefined },
): Promise<Response> {
  const { broker, history, connections, admission, turnstile } = options;
  const { username } = identity;
  // It may have taken a while to find out who it is. From here to the join nobody can come in between.
  const noRoom = options.isDraining() ? draining() : admission.noRoom(options.place);
  if (noRoom) return noRoom;
  if (admission.isFull(identity)) return admission.tooMany(identity);
  const transport = newTransport(request, options.isFramed, options);
  const connection = new Connection(transport, username, connections);
  if (isShown(identity)) connection.attachIdentity(identity);
  // Joined first: it counts against the limit while its subscription is being confirmed.
  connections.join(connection, options.place);
  let turn: Turn | undefined;
  try {
    // The signal fires when the client leaves before it was answered.
    const { signal } = request;
    const channel = channelOf(username, options.channelPrefix);
    if (options.isFramed && history.limits.count > 0) {
      const { resume } = options;
      const replay = new Replay(history, connection, { channel, maxReplay: options.maxReplay });
      connection.attachReplay(replay);
      // A new client starts where the history stands before anything is handed to its subscription. What a returning
      // one missed is read once nothing more can be missed.
      if (!resume) await replay.open(undefined);
      connection.attachSubscription(await broker.subscribe(channel, connection, { signal }));
      if (resume) await replay.open(resume);
    } else {
      connection.attachSubscription(await broker.subscribe(channel, connection, { signal }));
    }
    const refusal = await checkIn(identity, channel, options);
    signal.throwIfAborted();
    if (refusal) {
      connection.fail("refused");
      return refusal;
    }
    const passing = turnstile.pass(options.place, signal);
    turn = passing instanceof Promise ? await passing : passing;
    if (connection.state !== "opening") {
      turn.end();
      return options.isDraining()
        ? draining()
        : problem("unauthorized", "The user's connections were closed while this one was opening");
    }
    admission.makeRoom(identity);
    const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: options.idleTimeoutS });
    // Not through the `protocol` option: it splits the offer at ", " only, and throws for "a,b".
    if (options.isFramed) response.headers.set("sec-websocket-protocol", SUBPROTOCOL);
    transport.attach(socket, turn);
    return response;
  } catch (error) {
    turn?.end();
    connection.fail(messageOf(error));
    if (request.signal.aborted) {
      turnstile.left(options.place);
      return new Response(null, { status: 400 });
    }
    if (error instanceof TypeError) return problem("invalid_handshake", messageOf(error));
    const answer = problemOf(error);
    if (answer) return answer;
    throw error;
  }
}

/**
 * What can be known only once the subscription is confirmed: from then on an order to close reaches the connection,
 * so nothing revoked slips in between; and whoever comes in at the same time elsewhere counts it. When all is well it
 * uses the ticket up.
 * @throws {UnauthorizedError} when somebody else has used it up meanwhile.
 */
async function checkIn(
  identity: Identity,
  channel: string,
  { auth, broker, admission }: UpgradeOptions,
): Promise<Response | undefined> {
  const [isRevoked, counts] = await Promise.all([
    isShown(identity) && auth.isRevoked(identity),
    admission.isOverQuota(identity, Infinity) ? broker.counts([channel]) : [0],
  ]);
  if (isRevoked) return problem("unauthorized", "The token or ticket has been revoked: get a new one");
  if (admission.isOverQuota(identity, counts[0]!)) return admission.tooMany(identity);
  if (identity.ticket !== undefined) await auth.redeem(identity.ticket);
  return undefined;
}

/** Whether the identity was shown, not just said. */
function isShown({ exp, iat }: Identity): boolean {
  return exp !== undefined || iat !== undefined;
}

/** Only here does the subscription follow the handshake: before the first frame nobody knows whose it is. */
async function openNewcomer(request: Request, place: string, options: UpgradeOptions): Promise<Response> {
  const { auth, broker, connections, admission } = options;
  const why = broker.unavailable();
  if (why !== undefined) return problemOf(new BrokerUnavailableError(why))!;
  let turn: Turn;
  try {
    turn = await options.turnstile.pass(place, request.signal);
  } catch {
    return new Response(null, { status: 400 });
  }
  const noRoom = options.isDraining() ? draining() : admission.noRoom(place);
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
  const transport = newTransport(request, false, options);
  const newcomer = new Newcomer(transport, connections, {
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
      const isFull = admission.isFull(identity);
      const connection = new Connection(transport, identity.username, connections);
      if (isShown(identity)) connection.attachIdentity(identity);
      connections.join(connection, place);
      if (isFull) return connection.close(CLOSE.tooMany);
      const channel = channelOf(identity.username, options.channelPrefix);
      const open = async () => {
        const subscription = await broker.subscribe(channel, connection);
        const refusal = await checkIn(identity, channel, options).catch(async (error: unknown) => {
          await subscription.close();
          throw error;
        });
        if (refusal) connection.close(refusal.status === 429 ? CLOSE.tooMany : CLOSE.revoked);
        else admission.makeRoom(identity);
        connection.attachSubscription(subscription);
      };
      open().catch((error) => {
        const { code } = error instanceof UnauthorizedError ? CLOSE.unauthorized : CLOSE.overloaded;
        connection.close({ code, why: messageOf(error) });
      });
    },
  });
  connections.join(newcomer, place);
  transport.attach(upgraded.socket, turn);
  return upgraded.response;
}

/** A transport that learns when the client leaves before it was answered: Deno says so by the request's signal only. */
function newTransport(
  { signal }: Request,
  isFramed: boolean,
  { connections }: UpgradeOptions,
): WebSocketTransport {
  const transport = new WebSocketTransport(isFramed, connections.limits.maxBufferedBytes);
  signal.addEventListener("abort", () => transport.abandon(), { once: true });
  return transport;
}
