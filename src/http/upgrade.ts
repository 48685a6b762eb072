/**
 * From an HTTP request to a connection. Everything that can be refused is refused with an HTTP status before the
 * handshake is answered, where proxies and logs see it; and the subscription is confirmed before, so that from
 * the moment a client sees `open` no message to it can be missed.
 */
import type { Broker } from "../broker/broker.ts";
import type { Inbox } from "../inbox/inbox.ts";
import { Connection, type Mode } from "../connection.ts";
import type { Connections } from "../connections.ts";
import { BrokerUnavailableError, messageOf } from "../errors.ts";
import { Newcomer } from "../newcomer.ts";
import {
  channelOf,
  CLOSE,
  parseOffer,
  parsePosition,
  parseUsername,
  type Position,
  SUBPROTOCOL,
} from "../protocol.ts";
import { Replay } from "../replay.ts";
import { isOriginAllowed } from "./origin.ts";
import { problem, problemOf } from "./problem.ts";

export interface UpgradeOptions {
  broker: Broker;
  inbox: Inbox;
  /** Messages that a resume replays at most. */
  maxReplay: number;
  connections: Connections;
  channelPrefix: string;
  foldUsernames: boolean;
  allowedOrigins: readonly string[];
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

/** Answers a request for a WebSocket: with 101, or with a problem. */
export async function upgrade(request: Request, options: UpgradeOptions): Promise<Response> {
  const url = new URL(request.url);
  const refusal = refuse(request, url, options);
  if (refusal) return refusal;

  const offer = parseOffer(request.headers.get("sec-websocket-protocol"));
  if (offer.length > 0 && !offer.includes(SUBPROTOCOL)) {
    return problem(
      "invalid_handshake",
      `No known subprotocol was offered: offer "${SUBPROTOCOL}", or none for raw mode`,
    );
  }
  const mode: Mode = offer.length > 0 ? "v1" : "raw";
  const name = url.searchParams.get("username");
  if (name === null) {
    if (mode === "raw") return openNewcomer(request, options);
    return problem("invalid_handshake", `Who is connecting? Add "?username=…" to the address`);
  }
  let username: string;
  try {
    username = parseUsername(name, { fold: options.foldUsernames });
  } catch (error) {
    return problemOf(error)!;
  }
  const from = url.searchParams.get("resume");
  const resume = from === null ? undefined : parsePosition(from);
  if (from !== null && resume === undefined) {
    return problem("invalid_handshake", `"resume" must be a position as "hi" gave it, such as Zk3vQ9aB.17`);
  }
  return await openConnection(request, username, { ...options, mode, resume });
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
  if (options.isDraining()) return problem("draining", "The instance is shutting down: connect to another");
  if (!isOriginAllowed(request, options.allowedOrigins)) {
    return problem(
      "origin_not_allowed",
      "Pages of this origin may not connect: add it to USERWIRE_ALLOWED_ORIGINS",
    );
  }
  if (options.connections.isFull) {
    return problem(
      "full",
      "The instance holds as many sockets as it may: try another, or raise USERWIRE_MAX_CONNECTIONS",
    );
  }
  return undefined;
}

async function openConnection(
  request: Request,
  username: string,
  options: UpgradeOptions & { mode: Mode; resume: Position | undefined },
): Promise<Response> {
  const { broker, inbox, connections } = options;
  const connection = new Connection(username, options.mode, connections);
  // Joined first: it counts against the limit while its subscription is being confirmed.
  connections.join(connection);
  try {
    // The signal fires when the client leaves before it was answered.
    const { signal } = request;
    const channel = channelOf(username, options.channelPrefix);
    if (options.mode === "v1" && inbox.limits.count > 0) {
      const { resume } = options;
      const replay = new Replay(inbox, connection, { channel, maxReplay: options.maxReplay });
      connection.attachReplay(replay);
      // A new client starts where the inbox stands before anything is handed to its subscription. What a returning
      // one missed is read once nothing more can be missed.
      if (!resume) await replay.open(undefined);
      connection.attachSubscription(await broker.subscribe(channel, connection, { signal }));
      if (resume) await replay.open(resume);
    } else {
      connection.attachSubscription(await broker.subscribe(channel, connection, { signal }));
    }
    signal.throwIfAborted();
    if (connection.state !== "opening") {
      return problem("draining", "The instance is shutting down: connect to another");
    }
    const { socket, response } = Deno.upgradeWebSocket(request, { idleTimeout: options.idleTimeoutS });
    // Not through the `protocol` option: it splits the offer at ", " only, and throws for "a,b".
    if (options.mode === "v1") response.headers.set("sec-websocket-protocol", SUBPROTOCOL);
    connection.attachSocket(socket);
    return response;
  } catch (error) {
    connection.abandon(request.signal.aborted ? "the client left" : messageOf(error));
    if (request.signal.aborted) return new Response(null, { status: 400 });
    if (error instanceof TypeError) return problem("invalid_handshake", messageOf(error));
    const answer = problemOf(error);
    if (answer) return answer;
    throw error;
  }
}

/** Only here does the subscription follow the handshake: before the first frame nobody knows whose it is. */
function openNewcomer(request: Request, options: UpgradeOptions): Response {
  const { broker, connections } = options;
  const why = broker.unavailable();
  if (why !== undefined) return problemOf(new BrokerUnavailableError(why))!;
  let upgraded: Deno.WebSocketUpgrade;
  try {
    upgraded = Deno.upgradeWebSocket(request, { idleTimeout: options.idleTimeoutS });
  } catch (error) {
    return problem("invalid_handshake", messageOf(error));
  }
  const { socket, response } = upgraded;
  connections.join(
    new Newcomer(socket, connections, {
      timeoutS: options.identityTimeoutS,
      foldUsernames: options.foldUsernames,
      onIdentity(username) {
        const connection = new Connection(username, "raw", connections);
        connections.join(connection);
        connection.attachSocket(socket);
        broker.subscribe(channelOf(username, options.channelPrefix), connection).then(
          (subscription) => connection.attachSubscription(subscription),
          (error) => connection.close({ code: CLOSE.overloaded.code, why: messageOf(error) }),
        );
      },
    }),
  );
  return response;
}
