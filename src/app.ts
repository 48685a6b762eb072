/** The wiring: opens what the settings ask for, in order, and closes it in reverse. Knows every part, does nothing. */
import { type Backbone, openBackbone } from "./backbone.ts";
import type { Config } from "./config.ts";
import { Connections } from "./connections.ts";
import { isOriginAllowed } from "./http/origin.ts";
import { problem } from "./http/problem.ts";
import { createRoutes } from "./http/routes.ts";
import { SOCKET_PATHS, upgrade, type UpgradeOptions, wantsUpgrade } from "./http/upgrade.ts";
import type { Log } from "./log.ts";
import { CLOSE } from "./protocol.ts";
import { Publisher } from "./publisher.ts";
import denoJson from "../deno.json" with { type: "json" };

export interface App {
  /** Answers one request. */
  handle(request: Request): Response | Promise<Response>;
  readonly publisher: Publisher;
  readonly connections: Connections;
  /** How the first attempt to reach the broker ends. */
  firstAttempt: Backbone["firstAttempt"];
  /**
   * Stops taking work and closes every session within the window, in milliseconds.
   * @returns How many sockets did not answer.
   */
  drain(windowMs: number): Promise<number>;
  /** Lets go of everything. Call `drain` first. */
  close(): Promise<void>;
}

export interface AppOptions {
  /** Name of this instance. */
  node: string;
  log: Log;
}

export const VERSION: string = denoJson.version;

export function openApp(config: Config, options: AppOptions): App {
  const { node, log } = options;
  const backbone = openBackbone({ ...config, log });
  const { broker, inbox } = backbone;
  const foldUsernames = config.usernameCase === "lower";
  const { channelPrefix, allowedOrigins } = config;
  const publisher = new Publisher(broker, inbox, { channelPrefix, foldUsernames });
  const connections = new Connections({
    node,
    limits: config,
    maxConnections: config.maxConnections,
    receipts: publisher.receipts,
    log,
  });
  let isDraining = false;

  const routes = createRoutes({
    publisher,
    maxBodyBytes: config.maxBodyBytes,
    version: VERSION,
    log,
    readiness() {
      const why = isDraining ? "The instance is shutting down" : broker.unavailable();
      return {
        ready: why === undefined,
        ...(why !== undefined && { why }),
        broker: broker.kind,
        node,
        open: true,
        connections: connections.size,
      };
    },
  });

  const upgrades: UpgradeOptions = {
    broker,
    inbox,
    maxReplay: config.maxReplay,
    connections,
    channelPrefix,
    foldUsernames,
    allowedOrigins,
    idleTimeoutS: config.idleTimeoutS,
    identityTimeoutS: config.identityTimeoutS,
    isDraining: () => isDraining,
  };

  return {
    publisher,
    connections,
    firstAttempt: backbone.firstAttempt,

    handle(request) {
      // The address is put together from what the client calls the host.
      if (!URL.canParse(request.url)) return problem("invalid_request", "The Host header names no host");
      if (wantsUpgrade(request)) return upgrade(request, upgrades);
      if (!isOriginAllowed(request, allowedOrigins)) {
        return problem(
          "origin_not_allowed",
          "Pages of this origin may not call: add it to USERWIRE_ALLOWED_ORIGINS",
        );
      }
      if (isSocketOnly(request)) {
        return problem(
          "upgrade_required",
          "Connect with a WebSocket client; a proxy in between must speak HTTP/1.1 and pass Upgrade and Connection on",
          { upgrade: "websocket" },
        );
      }
      return routes(request);
    },

    async drain(windowMs) {
      isDraining = true;
      return await connections.drain(CLOSE.restart, windowMs);
    },

    async close() {
      await publisher.close();
      await backbone.close();
    },
  };
}

/**
 * Whether only a socket can be meant. At "/" there is the console page too, but a proxy that takes the Upgrade header
 * away leaves the key.
 */
function isSocketOnly(request: Request): boolean {
  const { pathname } = new URL(request.url);
  return SOCKET_PATHS.has(pathname) && (pathname !== "/" || request.headers.has("sec-websocket-key"));
}
