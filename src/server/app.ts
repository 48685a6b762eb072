/** The wiring: opens what the settings ask for, in order, and closes it in reverse. Knows every part, does nothing. */
import { isLoopback } from "../net/addresses.ts";
import type { Auth } from "../auth/auth.ts";
import { prepareAuth } from "../auth/authenticator.ts";
import { type Engine, openEngine } from "../engine/engine.ts";
import type { Config } from "../config/settings.ts";
import { Connections } from "../session/registry.ts";
import { Admission } from "../http/connection_limits.ts";
import { isPreflight, preflightAnswer, share, varyByOrigin } from "../http/cors.ts";
import { headerGuard } from "../http/header_size.ts";
import { hostGuard, originJudge } from "../net/origin.ts";
import { type OwnHost, ownHostReader } from "../net/own_host.ts";
import { Problem, problem } from "../http/problem.ts";
import { publicAddress } from "../net/public_url.ts";
import { RefusalLog } from "../http/refusal_log.ts";
import { sendTarget } from "../http/api/send.ts";
import { createRouter } from "../http/router.ts";
import { Turnstile } from "../http/turnstile.ts";
import { SOCKET_PATHS, upgrade, type UpgradeOptions, wantsUpgrade } from "../http/handshake.ts";
import type { Log } from "../log/log.ts";
import { Metrics } from "../metrics/metrics.ts";
import type { OpenFiles } from "../metrics/open_files.ts";
import { absolutePath } from "../config/paths.ts";
import type { Pem } from "../config/pem.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import type { NameRules } from "../protocol/username.ts";
import { Publisher } from "../publisher/publisher.ts";
import { WarningsWatch } from "../redis/commands.ts";
import denoJson from "../../deno.json" with { type: "json" };

export interface App {
  /**
   * Answers one request.
   * @param info What the server knows of its connection.
   */
  handle(request: Request, info: Deno.ServeHandlerInfo<Deno.NetAddr>): Response | Promise<Response>;
  readonly auth: Auth;
  readonly publisher: Publisher;
  readonly connections: Connections;
  /** How the first attempt to reach the broker ends. */
  firstAttempt: Engine["firstAttempt"];
  /** Reads the file with the address of Redis again. @throws {ConfigError} */
  reloadRedis: Engine["reload"];
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

/** Checks keys and tokens and opens nothing. @throws {ConfigError} with every fault. */
export function authOf(config: Config, log: Log): ReturnType<typeof prepareAuth> {
  return prepareAuth({
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
      names: namesOf(config),
      log,
    },
    channelPrefix: config.channelPrefix,
  });
}

function namesOf({ usernameCase, redisUrl, redisUrlFile, channelPrefix }: Config): NameRules {
  const isMemory = redisUrl === undefined && redisUrlFile === undefined;
  return { fold: usernameCase === "lower", bare: !isMemory && channelPrefix === "" };
}

/** @throws {ConfigError} with every fault of keys and tokens. */
export function openApp(config: Config, options: AppOptions): App {
  const { node, log, files } = options;
  const foldUsernames = config.usernameCase === "lower";
  const { channelPrefix, allowedOrigins } = config;
  const names = namesOf(config);
  const authWith = authOf(config, log);
  const backbone = openEngine({
    ...config,
    log,
    redisTls: options.redisTls,
    redisUrlFile: config.redisUrlFile && absolutePath(config.redisUrlFile, Deno.cwd()),
    probe: true,
  });
  const { broker, inbox } = backbone;
  const auth = authWith({ ...backbone, line: () => backbone.redis?.server?.life ?? "" });
  const watch = backbone.redis && new WarningsWatch(backbone.redis, log);
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
  // Whoever is connected is told now, not with the next message.
  inbox.onSetBack?.(() => connections.verify());
  let isDraining = false;
  const isOwnHost = auth.isOpen && isLoopback(config.host)
    ? hostGuard(config.host, allowedOrigins)
    : () => true;
  const ownHostOf = ownHostReader(config.trustedProxies);
  const judge = originJudge(allowedOrigins);
  const refusals = new RefusalLog(log, config);
  const refuseLargeHeaders = headerGuard(config.maxHeaderBytes);

  const router = createRouter({
    publisher,
    auth,
    metrics,
    names,
    ticketTtlS: config.ticketTtlS,
    socketUrlFor: publicAddress(config.publicUrl),
    page: config.page,
    openapi: config.openapi,
    showMetrics: config.metrics,
    maxBodyBytes: config.maxBodyBytes,
    maxFanoutBytes: config.maxFanoutBytes,
    bodyTimeoutS: config.bodyTimeoutS,
    version: VERSION,
    log,
    readiness() {
      const why = isDraining
        ? "The instance is shutting down"
        : backbone.unready() ?? (files.areScarce ? files.why : undefined);
      return {
        ready: why === undefined,
        ...(why !== undefined && { why }),
        broker: broker.kind,
        node,
        open: auth.isOpen,
        connections: connections.size,
        ...(watch && watch.warnings.length > 0 && { warnings: [...watch.warnings] }),
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
    names,
    idleTimeoutS: config.idleTimeoutS,
    identityTimeoutS: config.identityTimeoutS,
    isDraining: () => isDraining,
  };

  /** What can be refused whatever is asked for. */
  function refuse(request: Request, own: OwnHost | undefined): Problem | undefined {
    // Who asks how things are is to learn it.
    if (files.areScarce && !PROBES.has(URL.parse(request.url)?.pathname ?? "")) {
      return problem("out_of_files", files.why, { connection: "close" });
    }
    const tooLarge = refuseLargeHeaders(request);
    if (tooLarge) return tooLarge;
    if (own === undefined) {
      return problem(
        "invalid_request",
        "The Host header names no host: it must be a host, with a port or without, and nothing else",
      );
    }
    if (isOwnHost(own)) return undefined;
    return problem(
      "misdirected",
      "In open mode on this machine only its own names are answered: call it localhost, or add the origin by " +
        "which you call it to USERWIRE_ALLOWED_ORIGINS",
    );
  }

  /** The refusal of a web page; undefined for one that may, and for what is none. */
  function refusePage(origin: string | null, own: OwnHost, what: "call" | "connect"): Problem | undefined {
    if (origin === null || judge(origin, own) !== "refused") return undefined;
    return problem(
      "origin_not_allowed",
      `Pages of this origin may not ${what}: add it to USERWIRE_ALLOWED_ORIGINS. If it is the service's own, a proxy ` +
        `changes the Host header: let it pass on the one it got`,
    );
  }

  async function handshake(
    request: Request,
    peer: string,
    own: OwnHost | undefined,
  ): Promise<Response> {
    const answer = refuse(request, own) ?? refusePage(request.headers.get("origin"), own!, "connect") ??
      await upgrade(request, peer, upgrades);
    if (answer instanceof Problem) {
      metrics.onRefuse(answer.code);
      refusals.note(request, peer, answer, true);
    }
    return answer;
  }

  /** Answers a call that comes from a web page. */
  async function answerPage(request: Request, origin: string, own: OwnHost): Promise<Response> {
    const refusal = refusePage(origin, own, "call");
    const standing = refusal ? "refused" : judge(origin, own);
    const answer = refusal ??
      (standing === "listed" && isPreflight(request)
        ? preflightAnswer(request)
        : await answerCall(request, own));
    if (standing === "listed") share(answer, origin);
    varyByOrigin(answer);
    return answer;
  }

  function answerCall(request: Request, own: OwnHost): Response | Promise<Response> {
    const target = sendTarget(request);
    if (target !== undefined) return router.send(request, target);
    if (isSocketOnly(request)) {
      return problem(
        "upgrade_required",
        "Connect with a WebSocket client; a proxy in between must speak HTTP/1.1 and pass Upgrade and Connection on",
        { upgrade: "websocket" },
      );
    }
    return router.answer(request, own);
  }

  return {
    publisher,
    connections,
    auth,
    async firstAttempt(withinMs) {
      const attempt = await backbone.firstAttempt(withinMs);
      if (attempt.outcome === "ready") await watch?.look();
      return attempt;
    },
    reloadRedis: backbone.reload,

    handle(request, info) {
      const own = ownHostOf(request, info);
      if (wantsUpgrade(request)) return handshake(request, info.remoteAddr.hostname, own);
      const told = (answer: Response) => {
        if (answer instanceof Problem) refusals.note(request, info.remoteAddr.hostname, answer, false);
        return answer;
      };
      const refusal = refuse(request, own);
      if (refusal) return told(refusal);
      const origin = request.headers.get("origin");
      const answer = origin === null ? answerCall(request, own!) : answerPage(request, origin, own!);
      // What only a POST gets is kept by no cache.
      const mayBeKept = origin === null && request.method !== "POST";
      const last = mayBeKept ? (answer: Response) => (varyByOrigin(answer), told(answer)) : told;
      return answer instanceof Promise ? answer.then(last) : last(answer);
    },

    async drain(windowMs) {
      isDraining = true;
      return await connections.drain(CLOSE.restart, windowMs);
    },

    async close() {
      router.close();
      watch?.[Symbol.dispose]();
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
