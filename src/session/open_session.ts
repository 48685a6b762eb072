/**
 * How every session begins, whatever its transport: it joins, subscribes, reads where its client stands, and only then
 * is asked what can be known only now. From the confirmed subscription on an order to close reaches it, so nothing that
 * is revoked slips in between; and a session that opens elsewhere at the same time counts it.
 */
import type { Auth, Identity } from "../auth/auth.ts";
import type { Broker } from "../broker/broker.ts";
import type { History } from "../history/history.ts";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";
import { messageOf, UnauthorizedError } from "../protocol/errors.ts";
import type { Position } from "../protocol/position.ts";
import { channelOf } from "../protocol/username.ts";
import type { Broadcasts } from "./broadcasts.ts";
import type { SessionContext } from "./context.ts";
import { isShown } from "./credential_watch.ts";
import { Session } from "./session.ts";
import type { Transport } from "./transport.ts";

/** How many sessions a user may have. */
export interface UserLimit {
  /** Whether so many are too many, and a further one is to be refused. */
  isOverQuota(identity: Identity, sessions: number): boolean;
}

export interface OpenSessionParts {
  readonly context: SessionContext;
  readonly broker: Pick<Broker, "subscribe" | "counts">;
  readonly history: History;
  readonly broadcasts: Pick<Broadcasts, "ring" | "placeOf">;
  readonly auth: Pick<Auth, "isRevoked" | "redeem">;
  readonly limit: UserLimit;
  /** Messages that a resume replays at most. */
  readonly maxReplay: number;
  readonly channelPrefix: string;
  /** Whether raw clients get broadcasts too. */
  readonly broadcastRaw: boolean;
}

export interface OpenSessionOptions {
  /** Where the client is. */
  readonly addressKey: string;
  /** The position to resume from, if any. */
  readonly resume?: Position | undefined;
  /** The same for broadcasts. */
  readonly all?: Position | undefined;
  /** After how many seconds of silence the client wants a sign of life. @default `limits.pingS` */
  readonly pingS?: number | undefined;
  /** Fires when the client leaves before it was answered. */
  readonly signal?: AbortSignal;
}

/**
 * Opens the session of a client that is known; it may end before this resolves. Call `goLive` when its transport is open.
 * @throws {RefusedError | UnauthorizedError | BrokerUnavailableError} and then the session has ended.
 */
export type OpenSession = (
  transport: Transport,
  identity: Identity,
  options: OpenSessionOptions,
) => Promise<Session>;

/** It is known who the client is, and it may not come in. */
export class RefusedError extends Error {
  constructor(readonly close: typeof CLOSE.revoked | typeof CLOSE.tooMany) {
    super(close.reason);
  }
}

export function sessionOpener(parts: OpenSessionParts): OpenSession {
  const { context, broker, history, broadcasts, auth, limit, maxReplay, channelPrefix } = parts;
  const { registry } = context;

  /** Undefined where there is nothing to ask. */
  function checkIn(identity: Identity, channel: string): Promise<void> | undefined {
    const isLimited = limit.isOverQuota(identity, Infinity);
    return isShown(identity) || isLimited ? checkWithRedis(identity, channel, isLimited) : undefined;
  }

  async function checkWithRedis(identity: Identity, channel: string, isLimited: boolean): Promise<void> {
    const [isRevoked, counts] = await Promise.all([
      isShown(identity) && auth.isRevoked(identity),
      isLimited ? broker.counts([channel]) : [0],
    ]);
    if (isRevoked) throw new RefusedError(CLOSE.revoked);
    if (limit.isOverQuota(identity, counts[0]!)) throw new RefusedError(CLOSE.tooMany);
    if (identity.ticket !== undefined) await auth.redeem(identity.ticket);
  }

  return async (transport, identity, { addressKey, resume, all, pingS, signal }) => {
    const { username } = identity;
    const channel = channelOf(username, channelPrefix);
    const hasHistory = transport.isFramed && history.limits.count > 0;
    const session = new Session(transport, identity, context, {
      replay: hasHistory ? { history, channel, maxReplay } : undefined,
      pingS,
    });
    // Joined first: it counts against the limits while its subscription is being confirmed.
    registry.join(session, addressKey);
    try {
      if (limit.isOverQuota(identity, registry.countOf(username))) throw new RefusedError(CLOSE.tooMany);
      await session.subscribe(broker, channel, { resume, signal });
      if (transport.isFramed || parts.broadcastRaw) {
        session.listenTo(broadcasts.ring, await broadcasts.placeOf(all));
      }
      await checkIn(identity, channel);
      signal?.throwIfAborted();
      return session;
    } catch (error) {
      if (signal?.aborted) session.gone(undefined);
      else session.close(closeReasonOf(error));
      throw error;
    }
  };
}

function closeReasonOf(error: unknown): CloseReason {
  if (error instanceof RefusedError) return error.close;
  const { code } = error instanceof UnauthorizedError ? CLOSE.unauthorized : CLOSE.overloaded;
  return { code, reason: messageOf(error) };
}
