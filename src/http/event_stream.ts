/**
 * Connections for networks that block WebSockets: from a GET to a session whose frames come as server-sent events, and
 * from a POST to the frame that a client sends to it. Who gets one is decided as for sockets, see `admission.ts`.
 */
import type { Identity } from "../auth/auth.ts";
import { isShown } from "../session/credential_watch.ts";
import { type FramePostParts, postFrame } from "../session/frame_post.ts";
import { SseTransport } from "../session/sse_transport.ts";
import { InvalidFrameError } from "../protocol/errors.ts";
import { parseClientFrame } from "../protocol/frames.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { admit, identityOf } from "./admission.ts";
import { type BodyLimits, readPayload } from "./body.ts";
import { refusalOf } from "./explain.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import type { UpgradeOptions } from "./handshake.ts";
import { readStreamQuery } from "./offer.ts";
import { Problem, problem, problemOf } from "./problem.ts";

/** Where streams are. */
export const STREAM_PATH = "/v1/events";

/** Whether a request asks for a connection that lasts. */
export function wantsStream({ method, url }: Request): boolean {
  return method === "GET" && URL.parse(url)?.pathname === STREAM_PATH;
}

const HEADERS = {
  "content-type": "text/event-stream",
  // Nothing in between may keep it, or hold it back to compress it; nginx holds back nothing that says so itself.
  "cache-control": "no-store, no-transform",
  "x-accel-buffering": "no",
};

export interface EventStreamParts extends FramePostParts {
  readonly upgrades: UpgradeOptions;
  readonly metrics: Pick<Metrics, "onRefuse">;
}

export class EventStreams {
  readonly #parts: EventStreamParts;

  constructor(parts: EventStreamParts) {
    this.#parts = parts;
  }

  /** Answers with a stream, or with a problem. */
  async open(request: Request, info: ConnectionInfo): Promise<Response> {
    const { metrics } = this.#parts;
    const answer = await this.#admit(request, info).catch((error: unknown) => {
      const answer = problemOf(error);
      if (answer) return answer;
      throw error;
    });
    if (answer instanceof Problem) metrics.onRefuse(answer.code);
    return answer;
  }

  async #admit(request: Request, info: ConnectionInfo): Promise<Response> {
    const { upgrades } = this.#parts;
    const { limits, sessions } = upgrades;
    const { hostname } = info.remoteAddr;
    // Whoever only asks what there is gets the head of it, and no connection.
    if (request.method === "HEAD") {
      return await refusalOf(request, hostname, upgrades) ?? new Response(null, { headers: HEADERS });
    }
    const addressKey = limits.addressKeyOf(request, hostname);
    const refusal = limits.refuse(addressKey);
    if (refusal) return refusal;
    const asked = readStreamQuery(request, new URL(request.url));
    if (asked instanceof Response) return asked;
    const identity = await this.#identityOf(request, asked.name);
    if (identity instanceof Response) return identity;
    const transport = new SseTransport(sessions.limits.maxBufferedBytes);
    return await admit({ transport, identity, addressKey, asked, signal: request.signal }, upgrades, {
      answer: () => new Response(transport.answer(info.completed), { headers: HEADERS }),
    });
  }

  /**
   * Takes a frame of a client whose connection it names.
   * @throws {InvalidFrameError | UnauthorizedError | BrokerUnavailableError}
   */
  async take(request: Request, conn: string, limits: BodyLimits): Promise<Response> {
    const identity = await this.#identityOf(request, new URL(request.url).searchParams.get("username"));
    if (identity instanceof Response) return identity;
    if (isShown(identity) && await this.#parts.upgrades.auth.isRevoked(identity)) {
      return problem("unauthorized", "The token or ticket has been revoked: get a new one");
    }
    const payload = await readPayload(request, limits);
    if (payload.kind === "binary") {
      return problem("unsupported_media_type", "Frames are text: send application/json or text/plain");
    }
    const frame = payload.text;
    try {
      // On a socket it would end the connection; here there is an answer to tell it by.
      parseClientFrame(frame);
    } catch (error) {
      if (error instanceof InvalidFrameError) return problem("invalid_request", error.message);
      throw error;
    }
    if (await postFrame(this.#parts, { username: identity.username, conn, frame })) {
      return new Response(null, { status: 204 });
    }
    return problem(
      "connection_not_found",
      "The user has no such connection: it has ended, or its node does not answer. Connect again",
    );
  }

  /** A stream always needs to know at once who it is for. */
  async #identityOf(request: Request, name: string | null): Promise<Identity | Response> {
    const offer = { ...NO_OFFER, name };
    // Framed clients are never left to say it later.
    return (await identityOf(request, offer, this.#parts.upgrades))!;
  }
}

const NO_OFFER = { subprotocols: [], isFramed: true, resume: undefined, all: undefined, pingS: undefined };
