/**
 * The wiring: opens what the settings ask for, in order, and closes it in reverse. The room owns the life of a service,
 * from the settings to the exit code, and is the only one that knows every part; it answers no request by itself.
 */
import { resolve } from "node:path";
import type { Auth } from "../auth/auth.ts";
import { prepareAuth } from "../auth/authenticator.ts";
import { type Engine, openEngine } from "../engine/engine.ts";
import type { Config } from "../config/settings.ts";
import { Broadcasts } from "../session/broadcasts.ts";
import { foreignWarning } from "../session/context.ts";
import { drain } from "../session/drain.ts";
import { Draining } from "../session/draining.ts";
import { sessionOpener } from "../session/open_session.ts";
import { Registry } from "../session/registry.ts";
import { ConnectionLimits } from "../http/connection_limits.ts";
import { Turnstile } from "../http/turnstile.ts";
import { FrontDoor } from "../http/front_door.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import type { UpgradeOptions } from "../http/handshake.ts";
import { LogLevels } from "../log/levels.ts";
import type { Log } from "../log/log.ts";
import { openServiceLog } from "../log/open.ts";
import { Metrics } from "../metrics/metrics.ts";
import { Samples } from "../metrics/samples.ts";
import { openSpans } from "../metrics/spans.ts";
import { OpenFiles } from "../metrics/open_files.ts";
import { certificateEnds, type Pem } from "../config/pem.ts";
import { EVENT_TYPES } from "../events/events.ts";
import { HANDSHAKE_REFUSALS } from "../http/problem.ts";
import { CLOSE } from "../protocol/close_codes.ts";
import type { NameRules } from "../protocol/username.ts";
import { Publisher } from "../publisher/publisher.ts";
import type { OnRequest } from "../requests/by_function.ts";
import { type OnUsersChanged, openEvents } from "./events.ts";
import { type Look, openCalls, OPS_HOST } from "./calls.ts";
import { openNodes } from "./nodes.ts";
import { readinessOf } from "./readiness.ts";
import { REQUEST_TYPE } from "../requests/by_webhook.ts";
import { openRequests } from "./requests.ts";
import { WarningsWatch } from "../redis/commands.ts";
import denoJson from "../../deno.json" with { type: "json" };

export interface App {
  /** Answers one request. */
  handle(request: Request, info: ConnectionInfo): Response | Promise<Response>;
  /** Answers one request of the supervisor. */
  answerOps(request: Request): Response | Promise<Response>;
  readonly auth: Auth;
  readonly publisher: Publisher;
  readonly connections: Registry;
  /** Sends clients away, and stays. */
  readonly draining: Draining;
  /** How the first attempt to reach the broker ends. */
  firstAttempt: Engine["firstAttempt"];
  /** Reads the file with the address of Redis again. @throws {ConfigError} */
  reloadRedis: Engine["reload"];
  /**
   * Refuses handshakes from now on, and closes every session within the window, in milliseconds.
   * @returns How many sockets did not answer.
   */
  drain(windowMs: number): Promise<number>;
  /** Closes everything. Call `drain` first. */
  close(): Promise<void>;
}

export type { Look } from "./calls.ts";

export interface AppOptions extends Listeners {
  /** Name of this node. @default as the settings have it, else `<hostname>:<port>` */
  node?: string;
  /** Used instead of the log that the settings describe; stays the caller's to close. */
  log?: Log;
  /** That log, where its levels are the caller's already. */
  levels?: LogLevels;
  files?: OpenFiles;
  /** What clients are served with now, by what listens. */
  tls?: () => Pem | undefined;
  /** For a Redis behind TLS. */
  redisTls?: Pem | undefined;
  look?: Look | undefined;
  /** Whether it is one of several processes, whose numbers are asked for elsewhere than where clients connect. */
  hasOpsSocket?: boolean;
}

/** What the program that holds a service hears of it, in this process. */
export interface Listeners {
  /** Answers what clients ask, in place of the webhook. */
  readonly onRequest?: OnRequest | undefined;
  /** Hears what the backend is told of users: each change on one node, at least once. */
  readonly onUsersChanged?: OnUsersChanged | undefined;
}

export const VERSION: string = denoJson.version;

/** The connection of a supervisor, which comes through a file. */
const OPS_INFO: ConnectionInfo = {
  remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 0 },
  completed: Promise.resolve(),
};

/** Checks keys and tokens and opens nothing. @throws {ConfigError} with every fault. */
export function authOf(config: Config, log: Log): ReturnType<typeof prepareAuth> {
  return prepareAuth({
    apiKeys: config.apiKeys,
    apiKeysFile: config.apiKeysFile && resolve(config.apiKeysFile),
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

/** Passes every line on: how many of them, levels say. */
function openLog(config: Config, { log }: AppOptions): Log {
  return log ?? openServiceLog(config.node ?? String(config.port), { ...config, logLevel: "debug" });
}

/**
 * Opens all that a service is but what listens: give `handle` the requests of a server of your own.
 * @throws {ConfigError} with every fault of keys, tokens and the log.
 */
export function openApp(config: Config, options: AppOptions = {}): App {
  const {
    node = config.node ?? `${Deno.hostname()}:${config.port}`,
    levels = new LogLevels(openLog(config, options), options.log?.level ?? config.logLevel),
    files = new OpenFiles(),
  } = options;
  const parts = openParts(config, { ...options, node, levels, files });
  const { engine, auth, publisher, broadcasts, connections, watch, events, draining, asked } = parts;
  let isEnding = false;
  const upgrades = upgradesOf(parts, () => isEnding || draining.isOn);
  const samples = new Samples(parts.metrics);
  const nodes = openNodes({ ...parts, version: VERSION, isDraining: () => isEnding || draining.isOn });
  draining.onChange = () => void nodes.report();
  const readiness = parts.metrics.state = readinessOf(parts, () => isEnding);
  const calls = openCalls({
    ...{ parts, readiness, upgrades, samples, version: VERSION, look: options.look },
    nodes: () => nodes.list(),
    isEnding: () => isEnding,
  });
  const frontDoor = new FrontDoor({ ...parts, router: calls.router, upgrades });
  return {
    handle: (request, info) => frontDoor.handle(request, info),
    answerOps: (request) =>
      calls.router.answer(request, { own: OPS_HOST, info: OPS_INFO, requestId: crypto.randomUUID() }),
    publisher,
    connections,
    draining,
    auth,
    async firstAttempt(withinMs) {
      const attempt = await engine.firstAttempt(withinMs);
      if (attempt.outcome === "ready") await Promise.all([watch?.look(), nodes.report()]);
      // Also where Redis is away: then it goes on trying.
      if (attempt.outcome !== "refused") await broadcasts.start();
      return attempt;
    },
    reloadRedis: engine.reload,
    async drain(windowMs) {
      isEnding = true;
      draining.stop();
      calls.endStats();
      void nodes.report();
      return await drain(connections, CLOSE.restart, windowMs);
    },
    async close() {
      calls.close();
      samples[Symbol.dispose]();
      await nodes.close();
      watch?.[Symbol.dispose]();
      await events?.close();
      await broadcasts.close();
      await publisher.close();
      await engine.close();
      asked?.[Symbol.dispose]();
      if (!options.log && !options.levels) levels.in("service").close();
    },
  };
}

/** What calls and sockets share. */
type Parts = ReturnType<typeof openParts>;

function openParts(
  config: Config,
  { node, levels, files, tls, redisTls, hasOpsSocket = false, onUsersChanged, onRequest }:
    & AppOptions
    & Required<Pick<AppOptions, "node" | "levels" | "files">>,
) {
  const names = namesOf(config);
  // First, while nothing is open that would have to be closed: it may throw.
  const authWith = authOf(config, levels.in("auth"));
  const redisUrlFile = config.redisUrlFile && resolve(config.redisUrlFile);
  const redisLog = levels.in("redis");
  const engine = openEngine({ ...config, log: redisLog, redisTls, redisUrlFile, probe: true });
  const { broker, history, groups, redis } = engine;
  const auth = authWith({ redis, broker });
  const watch = redis && new WarningsWatch(redis, redisLog);
  const turnstile = new Turnstile((addressKey) => connections.lose(addressKey));
  const connections: Registry = new Registry({
    maxConnections: config.maxConnections,
    onFlood: (addressKey) => turnstile.flooded(addressKey),
    hasFlooded: (addressKey) => turnstile.hasFlooded(addressKey),
  });
  // Connected clients hear of a history that was set back now, not with their next message.
  history.onSetBack?.(() => {
    void connections.verify();
    broadcasts.verify();
  });
  const metrics = new Metrics({
    version: VERSION,
    isBrokerAvailable: () => broker.unavailable() === undefined,
    redisReconnects: () => redis?.reconnects ?? 0,
    files,
    lostSockets: () => connections.lost,
    lostLines: () => levels.lost,
    certificateEnds: () => certificateEnds(tls?.(), redisTls),
    refusals: HANDSHAKE_REFUSALS,
    webhookTypes: [...EVENT_TYPES, REQUEST_TYPE],
    lagging: () => connections.heartbeat.full,
  });
  const spans = openSpans(VERSION);
  const foldUsernames = config.usernameCase === "lower";
  const events = openEvents({
    ...{ config, node, log: levels.in("webhooks"), engine, connections, metrics, spans, onUsersChanged },
    version: VERSION,
  });
  const unacked = events?.unacked;
  const publisher = new Publisher(broker, history, { ...config, groups, foldUsernames, metrics, unacked });
  const broadcasts: Broadcasts = new Broadcasts({
    ...{ ...config, broker, history, metrics, spans, log: levels.in("session"), registry: connections },
    receipts: publisher.receipts,
    onForeign: foreignWarning(levels.in("session")),
  });
  const draining = new Draining(connections, levels.in("service"), config.drainS);
  const asked = openRequests({
    ...{ config, node, log: levels.in("webhooks"), metrics, onRequest },
    version: VERSION,
  });
  return {
    ...{ config, node, levels, log: levels.in("http"), files, names, engine, auth, watch, turnstile },
    ...{ connections, metrics, publisher, broadcasts, hasOpsSocket, events, draining, asked, spans },
  };
}

function upgradesOf(parts: Parts, isDraining: () => boolean): UpgradeOptions {
  const { config, levels, engine, connections, publisher, events, asked } = parts;
  const { broker, history } = engine;
  const limits = new ConnectionLimits(connections, config);
  const sessions = {
    ...parts,
    log: levels.in("session"),
    limits: config,
    registry: connections,
    receipts: publisher.receipts,
    presence: events?.presence,
    requests: asked?.requests,
    unacked: events?.unacked,
    onForeign: foreignWarning(levels.in("session")),
  };
  const openSession = sessionOpener({
    ...config,
    ...parts,
    context: sessions,
    broker,
    history,
    limit: limits,
  });
  return { ...config, ...parts, sessions, openSession, limits, broker, isDraining };
}
