/** The first lines in the log of a service: where it listens, and what in its settings an operator should know of. */
import type { Config } from "../config/settings.ts";
import type { Log } from "../log/log.ts";
import { isLoopback } from "../net/addresses.ts";
import { wideOrigins } from "../net/origin.ts";
import { type App, VERSION } from "./app.ts";

export function logBanner(
  log: Log,
  config: Config,
  { url, node, app }: { url: string; node: string; app: Pick<App, "auth"> },
): void {
  log.info("listening", { url, node, version: VERSION });
  if (config.redisUrl === undefined && config.redisUrlFile === undefined) {
    log.warn("broker in memory: users of this one node only; set REDIS_URL to scale out");
  }
  for (const wide of wideOrigins(config.allowedOrigins)) log.warn("allowed origin is wide", wide);
  const { isOpen, takesTokens } = app.auth;
  if (!isOpen) {
    log.info("closed mode: callers need a key, sockets a token or a ticket", { tokens: takesTokens });
    return;
  }
  log.warn(
    isLoopback(config.host)
      ? "open mode: any program on this machine may connect and send as anyone"
      : "open mode: every client that reaches this address may connect and send as anyone",
  );
}
