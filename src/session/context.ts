/** What a session needs of the process it lives in, the same for all sessions; the wiring puts it together. */
import type { Auth } from "../auth/auth.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { Spans } from "../metrics/spans.ts";
import type { Receipts } from "../publisher/receipts.ts";
import type { Requests } from "../requests/requests.ts";
import type { InboundLimits } from "./inbound_quota.ts";
import type { Registry } from "./registry.ts";

export interface SessionLimits extends InboundLimits {
  /** Bytes that may wait for the client before it counts as a slow reader. */
  maxBufferedBytes: number;
  /** Seconds of silence after which a framed client gets `p`. */
  pingS: number;
  /** Seconds without progress after which a slow reader is closed. */
  slowTimeoutS: number;
}

export interface SessionContext {
  /** Name of this node. */
  readonly node: string;
  readonly limits: SessionLimits;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly registry: Registry;
  readonly auth: Pick<Auth, "authenticate" | "isRevoked">;
  /** Hears which users come and go; undefined when nobody is told. */
  readonly presence?: { opened(username: string): void; closed(username: string): void } | undefined;
  /** What clients ask is answered there; undefined when nobody does. */
  readonly requests?: Requests | undefined;
  /** Hears who has confirmed a message that is watched; undefined when nobody is told. */
  readonly unacked?: { unwatch(token: string, users: readonly string[]): Promise<void> } | undefined;
  readonly receipts: Pick<Receipts, "handed" | "confirm" | "present">;
  /** Makes spans of deliveries; undefined where none are exported. */
  readonly spans?: Pick<Spans, "delivered"> | undefined;
  /** On the user's channel came a message with a number that is not of this installation's history. */
  onForeign(username: string): void;
}

const FOREIGN_AGAIN_MS = 3_600_000;

/** Warns of foreign messages, once an hour for all sessions together. */
export function foreignWarning(log: Log): SessionContext["onForeign"] {
  let warnedMs = -Infinity;
  return (user) => {
    const nowMs = performance.now();
    if (nowMs - warnedMs < FOREIGN_AGAIN_MS) return;
    warnedMs = nowMs;
    log.warn("messages of another installation", {
      user,
      reason:
        "Another installation publishes on the same channels: give each a USERWIRE_CHANNEL_PREFIX of its own",
    });
  };
}
