/** The wiring: opens what the settings ask for, in order, and closes it in reverse. Knows every part, does nothing. */
import { isLoopback } from "./addresses.ts";
import type { Auth } from "./auth/auth.ts";
import { prepareAuth } from "./auth/open.ts";
import { type Backbone, openBackbone } from "./backbone.ts";
import type { Config } from "./config.ts";
import { Connections } from "./connections.ts";
import { Admission } from "./http/admission.ts";
import { headerGuard } from "./http/header_size.ts";
import { hostGuard, isOriginAllowed } from "./http/origin.ts";
import { Problem, problem } from "./http/problem.ts";
import { publicAddress } from "./http/public_address.ts";
import { createRoutes } from "./http/routes.ts";
import { sendTarget } from "./http/send.ts";
import { Turnstile } from "./http/turnstile.ts";
import { SOCKET_PATHS, upgrade, type UpgradeOptions, wantsUpgrade } from "./http/upgrade.ts";
import type { Log } from "./log.ts";
import { Metrics } from "./metrics.ts";
import type { OpenFiles } from "./open_files.ts";
import { absolutePath } from "./paths.ts";
import type { Pem } from "./pem.ts";
import { CLOSE } from "./protocol.ts";
import { Publisher } from "./publisher.ts";
import denoJson from "../deno.json" with { type: "json" };

export interface App {
  /**
   * Answers one request.
   * @param peer Address at the other end of its connection.
   */
  handle(request: Request, peer: string): Response | Promise<Response>;
  readonly auth: Auth;
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
  files: OpenFiles;
  /** For a Redis behind TLS. */
  redisTls?: Pem | undefined;
}

/** Answered whatever is scarce. */
const PROBES: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/metrics"]);

export const VERSION: string = denoJson.version;

/** @throws {ConfigError} with every fault of keys and tokens. */
export function openApp(config: Config, options: AppOptions): App {
  const { node, log, files } = options;
  const foldUsernames = config.usernameCase === "lower";
  const { channelPrefix, allowedOrigins } = config;
  const authWith = prepareAuth({
    apiKeys: config.apiKeys,
    apiKeysFile: config.apiKeysFile && absolutePath(config.apiKeysFile, Deno.cwd()),
    tokens: {
      secret: config.jwtSecret,
      publicKey: config.jwtPublicKey,
      jwksUrl: config.jwksUrl,
      algorithms: config.jwtAlgorithms,
      issuer: config.jwtIssuer,
      audience: config.jwtAudience,
      clockToleranceS: config.jwtClockToleranceS,
      maxLifeS: config.maxTokenLifeS,
      foldUsernames,
      log,
    },
    channelPrefix,
  });
  const backbone = openBackbone({ ...config, log, redisTls: options.redisTls });
  const { broker, inbox } = backbone;
  const auth = authWith(backbone);
  const metrics = new Metrics({
    version: VERSION,
    isBrokerAvailable: () => broker.unavailable() === undefined,
    redisReconnects: () => backbone.redis?.reconnects ?? 0,
    files,
    lostSockets: () => connections.lost,
  });
  const publisher = new Publisher(broker, inbox, { channelPrefix, foldUsernames, metrics });
  const turnstile = new Turnstile((place) => connections.lose(place));
  const connections: Connections = new Connections({
    node,
    limits: config,
    maxConnections: config.maxConnections,
    auth,
    receipts: publisher.receipts,
    metrics,
    log,
    onFlood: (place) => turnstile.flooded(place),
    hasFlooded: (place) => turnstile.hasFlooded(place),
  });
  let isDraining = false;
  const isOwnHost = auth.isOpen && isLoopback(config.host)
    ? hostGuard(config.host, allowedOrigins)
    : () => true;
  const refuseLargeHeaders = headerGuard(config.maxHeaderBytes);

  const routes = createRoutes({
    publisher,
    auth,
    metrics,
    foldUsernames,
    ticketTtlS: config.ticketTtlS,
    socketUrlFor: publicAddress(config),
    maxTokenLifeS: config.maxTokenLifeS,
    page: config.page,
    openapi: config.openapi,
    showMetrics: config.metrics,
    maxBodyBytes: config.maxBodyBytes,
    bodyTimeoutS: config.bodyTimeoutS,
    version: VERSION,
    log,
    readiness() {
      const why = isDraining
        ? "The instance is shutting down"
        : broker.unavailable() ?? (files.areScarce ? files.why : undefined);
      return {
        ready: why === undefined,
        ...(why !== undefined && { why }),
        broker: broker.kind,
        node,
        open: auth.isOpen,
        connections: connections.size,
      };
    },
  });

  const upgrades: UpgradeOptions = {
    broker,
    inbox,
    maxReplay: config.maxReplay,
    connections,
    auth,
    admission: new Admission(connections, config),
    turnstile,
    tokenInQuery: config.tokenInQuery,
    channelPrefix,
    foldUsernames,
    allowedOrigins,
    idleTimeoutS: config.idleTimeoutS,
    identityTimeoutS: config.identityTimeoutS,
    isDraining: () => isDraining,
  };

  /** What can be refused whatever is asked for. */
  function refuse(request: Request, isSend: boolean): Problem | undefined {
    // Who asks how things are is to learn it.
    if (files.areScarce && !PROBES.has(URL.parse(request.url)?.pathname ?? "")) {
      return problem("out_of_files", files.why, { connection: "close" });
    }
    const tooLarge = refuseLargeHeaders(request);
    if (tooLarge) return tooLarge;
    // The address is put together from what the client calls the host.
    if (!isSend && !URL.canParse(request.url)) {
      return problem("invalid_request", "The Host header names no host");
    }
    if (isOwnHost(request)) return undefined;
    return problem(
      "misdirected",
      "In open mode on this machine only its own names are answered: call it localhost, or add the origin by " +
        "which you call it to USERWIRE_ALLOWED_ORIGINS",
    );
  }

  async function handshake(request: Request, peer: string, refusal: Problem | undefined): Promise<Response> {
    const answer = refusal ?? await upgrade(request, peer, upgrades);
    if (answer instanceof Problem) metrics.onRefuse(answer.code);
    return answer;
  }

  return {
    publisher,
    connections,
    auth,
    firstAttempt: backbone.firstAttempt,

    handle(request, peer) {
      const isSend = sendTarget(request) !== undefined;
      const refusal = refuse(request, isSend);
      if (wantsUpgrade(request)) return handshake(request, peer, refusal);
      if (refusal) return refusal;
      if (!isOriginAllowed(request, allowedOrigins)) {
        return problem(
          "origin_not_allowed",
          "Pages of this origin may not call: add it to USERWIRE_ALLOWED_ORIGINS",
        );
      }
      if (!isSend && isSocketOnly(request)) {
        return problem(
          "upgrade_required",
          "Connect with a WebSocket client; a proxy in between must speak HTTP/1.1 and pass Upgrade and Connection on",
          { upgrade: "websocket" },
        );
      }
      return routes.answer(request, peer);
    },

    async drain(windowMs) {
      isDraining = true;
      return await connections.drain(CLOSE.restart, windowMs);
    },

    async close() {
      routes.close();
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
