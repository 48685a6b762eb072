/**
 * What a call of the HTTP API is: how it stands in `/openapi.json`, and how it is answered, in one file a resource. A call
 * knows its shapes, its key's scope and whom it asks; not the router, not its neighbours, and no socket.
 */
import type { RouteConfig, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { Semaphores } from "../../async/semaphore.ts";
import type { Auth, Caller, Scope } from "../../auth/auth.ts";
import type { LogLevels } from "../../log/levels.ts";
import type { Log } from "../../log/log.ts";
import type { Metrics } from "../../metrics/metrics.ts";
import { InvalidGroupNameError, InvalidUsernameError } from "../../protocol/errors.ts";
import type { NameRules } from "../../protocol/username.ts";
import type { Publisher } from "../../publisher/publisher.ts";
import type { BodyLimits } from "../body.ts";
import { bearerOf } from "../credentials.ts";
import type { EventStreams } from "../event_stream.ts";
import type { ConnectionInfo } from "../../net/connection_info.ts";
import type { OwnHost } from "../../net/own_host.ts";
import type { Draining } from "../../session/draining.ts";
import type { StatsStreams } from "../stats_streams.ts";
import { type Effect, type Problem, problem } from "../problem.ts";
import type { Finding, NodeState, Readiness } from "./shapes.ts";

/** What calls are answered with. */
export interface Api {
  readonly publisher: Publisher;
  readonly auth: Auth;
  readonly names: NameRules;
  /** How long a ticket is good for, unless its buyer says, in seconds. */
  readonly ticketTtlS: number;
  /** Largest payload of a message, in bytes. */
  readonly maxBodyBytes: number;
  /** Most bytes that one batch sends: each payload times its users. */
  readonly maxFanoutBytes: number;
  /** Messages to groups that may be under way at one time. */
  readonly maxGroupSends: number;
  /** How bodies are read: one payload; what names one user and says little more; what names many; a client's frame. */
  readonly bodies: Readonly<Record<"single" | "small" | "bulk" | "frame", BodyLimits>>;
  /** Whether the metrics are there for all, for who has a key, or for nobody. */
  readonly showMetrics: "on" | "key" | "off";
  readonly metrics: Metrics;
  /** Where large batches take their turns, by the name of their key. */
  readonly largeBatches: Semaphores;
  /** Answers a body of lines, see `batch_lines.ts`. */
  readonly lines: {
    answer(request: Request, api: Api, caller: Caller, key: string | null): Response;
  };
  readonly log: Log;
  /** Connections by server-sent events. */
  readonly streams: Pick<EventStreams, "open" | "take">;
  /** The numbers of this node as they come. */
  readonly stats: Pick<StatsStreams, "open">;
  /** Looks at the set-up of this node, of so many; undefined where the program that holds the service has no doctor. */
  readonly look: ((nodes: number) => Promise<readonly Finding[]>) | undefined;
  /** The only name by which is called what concerns one of several processes; undefined for all. */
  readonly opsHost: OwnHost | undefined;
  readonly levels: LogLevels;
  readonly draining: Draining;
  /** Where clients connect, by the name in a request. */
  socketUrlFor(own: OwnHost): URL;
  readiness(): z.infer<typeof Readiness>;
  /** All nodes. @throws {BrokerUnavailableError} */
  nodes(): Promise<NodeState[]>;
}

/** What handlers know of a request beside the request itself. */
export interface Env {
  Bindings: { own: OwnHost; info: ConnectionInfo; requestId: string };
  Variables: { effect?: Effect };
}

export type CallContext = Context<Env>;

export interface Call {
  /** How it stands in the document. */
  readonly route: RouteConfig & { getRoutingPath(): string };
  /** What it may have done when the broker fails; undefined for one that only asks. */
  readonly effect?: Effect;
  /** Undefined where Hono answers: HEAD with what GET says, less the body. */
  readonly answer?: (c: CallContext, api: Api) => Response | Promise<Response>;
}

/**
 * Who calls.
 * @throws {UnauthorizedError | ForbiddenError} when the key is not known, or not for this.
 */
export function authorize(c: CallContext, api: Api, scope: Scope | "any"): Caller {
  return api.auth.authorize(bearerOf(c.req.raw), scope);
}

/**
 * The refusal where several processes share the port and a random one of them would answer; undefined else.
 * @param what They have of their own: "numbers".
 */
export function refuseShared(c: CallContext, api: Api, what: string): Problem | undefined {
  if (api.opsHost === undefined || c.env.own === api.opsHost) return undefined;
  return problem(
    "not_found",
    `Several processes share this port, and each would answer with ${what} of its own: ${c.req.method} ${c.req.path} ` +
      "at USERWIRE_OPS_PORT has them all",
  );
}

/** The third part of the path, which is the username, or another. Hono's own parameter would pass broken encodings on. */
export function segmentOf(c: CallContext, index = 3): string {
  return c.req.path.split("/")[index]!;
}

/** @throws {InvalidUsernameError} */
export function usernameIn(c: CallContext): string {
  return usernameFrom(segmentOf(c));
}

/** The name of a group, which stands in the same place. @throws {InvalidGroupNameError} */
export function groupIn(c: CallContext, api: Api): string {
  const segment = segmentOf(c);
  try {
    return api.publisher.groups.name(decodeURIComponent(segment));
  } catch (error) {
    if (!(error instanceof URIError)) throw error;
    throw new InvalidGroupNameError(
      "The group's name in the path is not percent-encoded UTF-8: encode it as encodeURIComponent does",
    );
  }
}

/**
 * The username that stands in a path.
 * @throws {InvalidUsernameError}
 */
export function usernameFrom(segment: string): string {
  // Most names are what they look like.
  if (!segment.includes("%")) return segment;
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new InvalidUsernameError(
      "The username in the path is not percent-encoded UTF-8: encode it as encodeURIComponent does",
    );
  }
}

/** The query, of a name given twice the last; undefined when there is none. */
export function queryOf(request: Request): Record<string, string> | undefined {
  const at = request.url.indexOf("?");
  return at < 0 ? undefined : Object.fromEntries(new URLSearchParams(request.url.slice(at)));
}
