/** The wiring of events: who decides, where they wait, and who carries them. Nothing of it runs unless somebody listens. */
import type { Config } from "../config/settings.ts";
import type { Engine } from "../engine/engine.ts";
import type { Entry } from "../events/events.ts";
import { openEventStore } from "../events/open.ts";
import { Presence } from "../events/presence.ts";
import { Unacked } from "../events/unacked_teller.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { Spans } from "../metrics/spans.ts";
import { messageOf } from "../protocol/errors.ts";
import type { Registry } from "../session/registry.ts";
import { Carrier } from "../webhooks/carrier.ts";
import { type Delivery, type Message, Webhook } from "../webhooks/webhook.ts";

/** A user came online, or went offline. Ignore it when `n` is smaller than that of the last change of this user. */
export interface UserChange {
  readonly user: string;
  readonly online: boolean;
  readonly n: number;
}

/**
 * Hears of users that came and went. A rejection, or what it throws, has the changes come again.
 * @param changes Undefined when something was not told, or may not have been: nobody is online any more by what was told
 *                before, and whoever is online is told again.
 */
export type OnUsersChanged = (changes: readonly UserChange[] | undefined) => void | Promise<void>;

interface EventsParts {
  readonly config: Config;
  readonly node: string;
  readonly version: string;
  readonly log: Log;
  readonly engine: Engine;
  readonly connections: Registry;
  readonly metrics: Metrics;
  readonly spans: Spans | undefined;
  readonly onUsersChanged: OnUsersChanged | undefined;
}

/** An entry that was taken may be under way for as long as a webhook may take, and this long in its process. */
const HOLD_SPARE_MS = 5_000;

export interface Events {
  /** Undefined when nobody is told who comes and goes. */
  readonly presence: Presence | undefined;
  /** Undefined when nobody is told of messages. */
  readonly unacked: Unacked | undefined;
  close(): Promise<void>;
}

/** @returns Undefined when nobody is to be told anything. */
export function openEvents(parts: EventsParts): Events | undefined {
  const { config, node, version, log, engine, connections, metrics, spans, onUsersChanged } = parts;
  const { webhookUrl: url, webhookSecrets: secrets, webhookTimeoutMs: timeoutMs } = config;
  const told = (what: "users" | "unacked") => url !== undefined && config.webhookEvents.includes(what);
  const hasPresence = told("users") || onUsersChanged !== undefined;
  if (!hasPresence && !told("unacked")) return undefined;
  const webhook = url === undefined
    ? undefined
    : new Webhook({ url, secrets: secrets ?? [], timeoutMs, spans, userAgent: `userwire/${version}` });
  const store = openEventStore(engine, {
    node,
    channelPrefix: config.channelPrefix,
    offlineAfterMs: config.offlineAfterS * 1_000,
    holdMs: timeoutMs + HOLD_SPARE_MS,
  });
  const carrier = new Carrier({
    ...{ store, metrics, log },
    async deliver(entry) {
      const isUnacked = entry.type === "message.unacked";
      if (onUsersChanged && !isUnacked) {
        const refusal = await hand(entry, onUsersChanged);
        if (refusal) return refusal;
      }
      // That something was lost is said to whoever is told anything.
      return webhook && (entry.type === "users.unknown" || told(isUnacked ? "unacked" : "users"))
        ? await webhook.post(isUnacked ? traced(entry) : entry)
        : DELIVERED;
    },
  });
  const onEvent = () => carrier.wake();
  const presence = !hasPresence ? undefined : new Presence({
    ...{ store, log, onEvent },
    isHere: (user) => connections.countOf(user) > 0,
    usersHere: () => connections.users(),
  });
  const unacked = told("unacked") ? new Unacked({ store, log, onEvent }) : undefined;
  return {
    presence,
    unacked,
    async close() {
      await presence?.close();
      await unacked?.close();
      await carrier.close();
      webhook?.[Symbol.dispose]();
    },
  };
}

const DELIVERED: Delivery = { outcome: "delivered", status: 204, body: "", headers: new Headers() };

/** With the span of the send as its own header, which a backend's instrumentation reads by itself. */
function traced(entry: Entry): Message {
  const { traceparent } = JSON.parse(entry.data) as { traceparent?: string };
  return { ...entry, traceparent };
}

/** @returns What went wrong, if anything did. */
async function hand({ data, type }: Entry, listener: OnUsersChanged): Promise<Delivery | undefined> {
  try {
    await listener(type === "users.changed" ? JSON.parse(data).changes : undefined);
    return undefined;
  } catch (error) {
    const reason = `onUsersChanged failed: ${messageOf(error)}`;
    return { outcome: "refused", status: 500, body: "", headers: new Headers(), reason };
  }
}
