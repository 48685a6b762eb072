/** The wiring of requests: who answers what clients ask. Nothing of it runs unless somebody does. */
import type { Config } from "../config/settings.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { FunctionResponder, type OnRequest } from "../requests/by_function.ts";
import { WebhookResponder } from "../requests/by_webhook.ts";
import { MAX_UNDER_WAY, Requests } from "../requests/requests.ts";
import { Webhook } from "../webhooks/webhook.ts";

interface RequestsParts {
  readonly config: Config;
  readonly node: string;
  readonly version: string;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly onRequest: OnRequest | undefined;
}

export interface OpenRequests extends Disposable {
  readonly requests: Requests;
}

/** @returns Undefined when nobody is to be asked. */
export function openRequests(parts: RequestsParts): OpenRequests | undefined {
  const { config, node, version, log, metrics, onRequest } = parts;
  const { webhookUrl: url, webhookSecrets: secrets = [], webhookTimeoutMs: timeoutMs } = config;
  if (onRequest) {
    const responder = new FunctionResponder({ onRequest, timeoutMs, node, log });
    return {
      requests: new Requests(responder, metrics),
      [Symbol.dispose]: () => responder[Symbol.dispose](),
    };
  }
  if (url === undefined || !config.webhookEvents.includes("requests")) return undefined;
  const webhook = new Webhook({
    ...{ url, secrets, timeoutMs },
    userAgent: `userwire/${version}`,
    maxIdle: MAX_UNDER_WAY,
  });
  const responder = new WebhookResponder({ webhook, node, metrics, log });
  return { requests: new Requests(responder, metrics), [Symbol.dispose]: () => webhook[Symbol.dispose]() };
}
