/**
 * The settings: one table says for each its environment variable, flag, default, unit, meaning and how it is read; the
 * ways of reading are in `kinds.ts`. The flags of `serve`, its help and `docs/settings.md` are made from the same rows, so
 * a new setting is one new row.
 *
 * The room owns what can be set and how it is checked, and must not know who uses it. Reading is pure: variables and flags
 * come in as arguments, and all faults come out at once. No fault shows the value of a secret.
 */
import { isLoopback } from "../net/addresses.ts";
import { databaseFault, parseRedisUrl } from "../redis/address.ts";
import {
  bytes,
  either,
  host,
  type Kind,
  list,
  milliseconds,
  oneOf,
  origins,
  prefix,
  processes,
  publicUrl,
  ranges,
  redisUrl,
  seconds,
  secret,
  secureUrl,
  someOf,
  text,
  webhookSecrets,
  whole,
  word,
  yesOrNo,
} from "./kinds.ts";
import { PREFIX, unknownVariables } from "./suggestions.ts";

/** One row of the table. */
export interface Setting<Value> {
  readonly env: string;
  /** Name of the flag, without the dashes: the variable's without `USERWIRE_`, in kebab case. */
  readonly flag: string;
  readonly kind: Kind<Value>;
  /** Undefined when the setting may stay unset. */
  readonly fallback: Value | undefined;
  /** The default in words. */
  readonly fallbackText: string;
  readonly meaning: string;
}

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;

/** Larger headers, in bytes, never come: Deno itself refuses the heads that hold them. */
export const RUNTIME_HEADER_BYTES = 65_536;

/** Every setting, by its key in `Config`. */
// deno-fmt-ignore -- one line each, however long
export const SETTINGS = {
  host: setting("HOST", host, "127.0.0.1", "IP address or host name to listen on"),
  port: setting("PORT", whole(0, 65_535), 8765, "Port to listen on; 0 takes a free one"),
  redisUrl: optional("REDIS_URL", redisUrl, "URL of Redis; if unset, messages stay in this process, which suits a single node"),
  redisUrlFile: optional("REDIS_URL_FILE", text, "File with the URL of Redis, instead of REDIS_URL; read again on SIGHUP and when Redis refuses the login"),
  redisSentinelUser: optional("REDIS_SENTINEL_USER", text, "ACL user at the Sentinels that REDIS_URL names, where it is not the default one"),
  redisSentinelPassword: optional("REDIS_SENTINEL_PASSWORD", secret, "Password of the Sentinels that REDIS_URL names, where they want one"),
  redisFunctions: setting("USERWIRE_REDIS_FUNCTIONS", oneOf("off", "load"), "off", "Load the Redis functions, with which programs send by one command, when they are missing or older"),
  redisCa: optional("REDIS_CA", text, "PEM file of the CA that signed the certificate of Redis; if unset, the public CAs"),
  redisCert: optional("REDIS_CERT", text, "PEM file of the client certificate for Redis"),
  redisKey: optional("REDIS_KEY", text, "PEM file of the private key of REDIS_CERT"),
  processes: setting("USERWIRE_PROCESSES", processes, 1, "Number of processes that serve on PORT together; `auto` starts one for each core"),
  opsHost: setting("USERWIRE_OPS_HOST", host, "127.0.0.1", "With several processes, IP address or host name for `/metrics` and `/readyz` of all"),
  opsPort: optional("USERWIRE_OPS_PORT", whole(0, 65_535), "With several processes, port for `/metrics` and `/readyz` of all, where 0 takes a free one; if unset, the one after PORT"),
  logLevel: setting("LOG_LEVEL", oneOf("debug", "info", "warn", "error"), "info", "Lowest level that is logged"),
  logDir: setting("LOG_DIR", text, "logs", "Folder of the log files"),
  logFormat: setting("LOG_FORMAT", oneOf("pretty", "json"), "pretty", "Format of log lines on the console"),
  logMaxBytes: setting("LOG_MAX_BYTES", bytes(1, GIB), 10 * MIB, "Size at which the log file is rotated"),
  logRotate: setting("LOG_ROTATE", oneOf("size", "daily"), "size", "When the log file is rotated, where daily means at its size and at midnight (UTC)"),
  logMaxFiles: setting("LOG_MAX_FILES", whole(2, 1000), 5, "Number of log files to keep, the current one included"),
  open: setting("USERWIRE_OPEN", yesOrNo, false, "Serve without keys and tokens even where other machines can reach HOST"),
  apiKeys: optional("USERWIRE_API_KEYS", secret, "API keys that may call the HTTP API: lines made by `userwire key new`, comma separated"),
  apiKeysFile: optional("USERWIRE_API_KEYS_FILE", text, "File of API keys, one line of `userwire key new` each; read again on SIGHUP"),
  jwtSecret: optional("USERWIRE_JWT_SECRET", secret, "Secret with which the tokens (JWT) of clients are signed: HS256, HS384 or HS512"),
  jwtPublicKey: optional("USERWIRE_JWT_PUBLIC_KEY", secret, "Public key that verifies the tokens (JWT) of clients, as PEM or JWK"),
  jwksUrl: optional("USERWIRE_JWKS_URL", secureUrl, "URL of the JWKS that verifies the tokens (JWT) of clients"),
  jwtAlgorithms: setting("USERWIRE_JWT_ALGORITHMS", list, [], "Signature algorithms that tokens may use; if empty, all that suit the key"),
  jwtIssuer: optional("USERWIRE_JWT_ISSUER", text, "Issuer that tokens must have in `iss`"),
  jwtAudience: optional("USERWIRE_JWT_AUDIENCE", text, "Audience that tokens must have in `aud`"),
  jwtClockToleranceS: setting("USERWIRE_JWT_CLOCK_TOLERANCE_S", seconds(0, 300), 5, "Tolerance for the clock of the service that signs tokens"),
  maxTokenLifeS: setting("USERWIRE_MAX_TOKEN_LIFE_S", seconds(60, 31_536_000), 2_592_000, "Longest lifetime of a token, from `iat` to `exp`; revocations are kept as long"),
  tokenInQuery: setting("USERWIRE_TOKEN_IN_QUERY", yesOrNo, false, "Accept the token in `?token=` too, where it ends up in the logs of proxies"),
  ticketTtlS: setting("USERWIRE_TICKET_TTL_S", seconds(1, 3600), 30, "Lifetime of a ticket"),
  publicUrl: optional("USERWIRE_PUBLIC_URL", publicUrl, "URL at which clients connect, for the `url` of tickets; if unset, the host that the ticket was requested from"),
  page: setting("USERWIRE_PAGE", oneOf("on", "key", "off"), "on", "Access to the console page for everybody, with an API key, or for nobody"),
  openapi: setting("USERWIRE_OPENAPI", oneOf("on", "key", "off"), "on", "Access to `/openapi.json` for everybody, with an API key, or for nobody"),
  metrics: setting("USERWIRE_METRICS", oneOf("on", "key", "off"), "key", "Access to `/metrics` for everybody, with an API key (in open mode for everybody), or for nobody"),
  tlsCert: optional("USERWIRE_TLS_CERT", text, "PEM file of the certificate chain for https:// and wss://"),
  tlsKey: optional("USERWIRE_TLS_KEY", text, "PEM file of the private key of USERWIRE_TLS_CERT"),
  node: optional("USERWIRE_NODE", word, "Name of this node; if unset, `<hostname>:<port>`"),
  subscriptions: setting("USERWIRE_SUBSCRIPTIONS", oneOf("dedicated", "shared"), "dedicated", "Redis connections for subscriptions, one per WebSocket connection or a few shared by all"),
  sharedConnections: setting("USERWIRE_SHARED_CONNECTIONS", whole(1, 64), 1, "Number of Redis connections per process with shared subscriptions"),
  channelPrefix: setting("USERWIRE_CHANNEL_PREFIX", prefix, "", "Prefix of the channel name, before the username"),
  history: setting("USERWIRE_HISTORY", whole(0, 100_000), 100, "Number of messages to keep for each user; 0 keeps none"),
  historyTtlS: setting("USERWIRE_HISTORY_TTL_S", seconds(1, 2_592_000), 300, "Time that messages are kept in the history"),
  maxReplay: setting("USERWIRE_MAX_REPLAY", whole(1, 100_000), 300, "Largest number of messages replayed to a client that resumes"),
  broadcastRaw: setting("USERWIRE_BROADCAST_RAW", yesOrNo, false, "Give broadcasts to raw clients too, which can't tell them from other messages"),
  usernameCase: setting("USERWIRE_USERNAME_CASE", oneOf("keep", "lower"), "keep", "Letter case of usernames, kept or folded to lower case"),
  allowedOrigins: setting("USERWIRE_ALLOWED_ORIGINS", origins, [], "Origins of other sites whose pages may connect and call; `https://*.example.com` covers all subdomains, `*` all sites"),
  maxConnections: setting("USERWIRE_MAX_CONNECTIONS", whole(1, 1_000_000), 10_000, "Limit of WebSocket connections of this node, all its processes together"),
  maxConnectionsPerUser: setting("USERWIRE_MAX_CONNECTIONS_PER_USER", whole(0, 100_000), 20, "Limit of WebSocket connections of one user on this node; 0 means no limit"),
  onTooMany: setting("USERWIRE_ON_TOO_MANY", oneOf("refuse", "replace"), "refuse", "What happens to a connection above USERWIRE_MAX_CONNECTIONS_PER_USER, which is refused or replaces the oldest"),
  maxConnectionsPerAddress: setting("USERWIRE_MAX_CONNECTIONS_PER_ADDRESS", whole(0, 1_000_000), 2_000, "Limit of WebSocket connections of one client address (IPv6: /64); 0 means no limit"),
  upgradesPerSecond: setting("USERWIRE_UPGRADES_PER_SECOND", whole(0, 1_000_000), 500, "Rate limit of handshakes of one client address (burst: twice that); 0 means no limit"),
  trustedProxies: setting("USERWIRE_TRUSTED_PROXIES", ranges, [], "Addresses or ranges of proxies whose `X-Forwarded-For`, `-Proto` and `-Host` are trusted"),
  maxFrameBytes: setting("USERWIRE_MAX_FRAME_BYTES", bytes(1, 64 * MIB), 65_536, "Size limit of a frame from a client"),
  maxFramesPerSecond: setting("USERWIRE_MAX_FRAMES_PER_SECOND", whole(1, 1_000_000), 100, "Rate limit of frames from one client"),
  maxBytesPerSecond: setting("USERWIRE_MAX_BYTES_PER_SECOND", bytes(1, GIB), 4 * MIB, "Rate limit of bytes from one client"),
  maxHeaderBytes: setting("USERWIRE_MAX_HEADER_BYTES", bytes(1024, RUNTIME_HEADER_BYTES), RUNTIME_HEADER_BYTES, "Size limit of all headers of a request together; the default is the limit of Deno"),
  maxFanoutBytes: setting("USERWIRE_MAX_FANOUT_BYTES", bytes(1, 16 * GIB), 64 * MIB, "Size limit of what one batch, or one message to a group, sends: each payload times its recipients"),
  maxGroupUsers: setting("USERWIRE_MAX_GROUP_USERS", whole(1, 1_000_000), 10_000, "Limit of users of a group"),
  maxGroupSends: setting("USERWIRE_MAX_GROUP_SENDS", whole(1, 10_000), 2, "Limit of messages to groups that one process sends at a time; more are refused with 429"),
  maxBodyBytes: setting("USERWIRE_MAX_BODY_BYTES", bytes(1, 64 * MIB), 65_536, "Size limit of a request body"),
  bodyTimeoutS: setting("USERWIRE_BODY_TIMEOUT_S", seconds(1, 3600), 10, "Time limit for receiving a request body"),
  maxBufferedBytes: setting("USERWIRE_MAX_BUFFERED_BYTES", bytes(1, GIB), MIB, "Bytes that may wait to be sent to one client before it counts as slow"),
  pingS: setting("USERWIRE_PING_S", seconds(1, 3600), 25, "Time without traffic after which the server sends a ping frame (`p`)"),
  idleTimeoutS: setting("USERWIRE_IDLE_TIMEOUT_S", seconds(1, 3600), 30, "Time without a sign of life of a client after which its connection is closed"),
  identityTimeoutS: setting("USERWIRE_IDENTITY_TIMEOUT_S", seconds(1, 3600), 5, "Time limit for a client to identify itself"),
  slowTimeoutS: setting("USERWIRE_SLOW_TIMEOUT_S", seconds(1, 3600), 10, "Time limit for a slow client to catch up before its connection is closed"),
  redisTimeoutMs: setting("USERWIRE_REDIS_TIMEOUT_MS", milliseconds(1, 600_000), 3000, "Time limit for an answer of Redis"),
  webhookUrl: optional("USERWIRE_WEBHOOK_URL", secureUrl, "URL of the backend that is sent webhooks; if unset, there are none"),
  webhookSecrets: optional("USERWIRE_WEBHOOK_SECRETS", webhookSecrets, "Secrets with which webhooks are signed, comma separated: the one in use, and while it is being changed the other one too"),
  webhookEvents: setting("USERWIRE_WEBHOOK_EVENTS", someOf("users", "requests", "unacked"), ["users"], "What webhooks carry, comma separated"),
  webhookTimeoutMs: setting("USERWIRE_WEBHOOK_TIMEOUT_MS", milliseconds(100, 60_000), 5000, "Time limit for the answer to a webhook, or to a request of a client"),
  offlineAfterS: setting("USERWIRE_OFFLINE_AFTER_S", seconds(1, 3600), 15, "Time without a connection after which a user is told to be offline"),
  drainS: setting("USERWIRE_DRAIN_S", seconds(0, 3600), 10, "Time over which clients are disconnected at shutdown"),
} as const;

/** Variables that only the commands speaking to a running service read. Known here so that `serve` knows them. */
export const CLIENT_VARIABLES = {
  url: { env: "USERWIRE_URL", fallback: "http://127.0.0.1:8765", meaning: "Address of the service" },
  key: { env: "USERWIRE_KEY", fallback: "", meaning: "API key to call with" },
  token: { env: "USERWIRE_TOKEN", fallback: "", meaning: "Token to connect with" },
} as const;

/** The settings as the service uses them, frozen. */
export type Config = {
  readonly [Key in keyof typeof SETTINGS]: (typeof SETTINGS)[Key] extends Setting<infer Value> ? Value
    : never;
};

function setting<Value>(
  env: string,
  kind: Kind<Value>,
  fallback: NoInfer<Value>,
  meaning: string,
): Setting<Value> {
  return {
    env,
    flag: env.replace(PREFIX, "").toLowerCase().replaceAll("_", "-"),
    kind,
    fallback,
    fallbackText: [inWords(fallback), kind.unit].filter(Boolean).join(" "),
    meaning: kind.choices === undefined ? meaning : `${meaning}: ${either.format(kind.choices)}`,
  };
}

/** A setting without a default. */
function optional<Value>(env: string, kind: Kind<Value>, meaning: string): Setting<Value | undefined> {
  return setting<Value | undefined>(env, kind as Kind<Value | undefined>, undefined, meaning);
}

function inWords(value: unknown): string {
  if (value === undefined) return "unset";
  return value === "" || (Array.isArray(value) && value.length === 0) ? "empty" : String(value);
}

/** Where settings come from. */
export interface Sources {
  /**
   * Environment variables. Those that begin with `USERWIRE_` must all be known, unless they were made for a service of
   * that name, see `suggestions.ts`.
   */
  readonly env?: Readonly<Record<string, string>>;
  /** Flags by name, without dashes: `{ "redis-url": "redis://…", open: true }`. */
  readonly flags?: Readonly<Record<string, string | boolean | undefined>>;
  /** What a file says, see `file.ts`. */
  readonly file?: SettingsFile | undefined;
}

/** A file of settings, as it was read. */
export interface SettingsFile {
  readonly path: string;
  /** By variable, each as the variable would say it. */
  readonly values: Readonly<Record<string, string>>;
  /** What can't be used of it. */
  readonly faults: readonly string[];
}

/** Who says what a setting is. */
export type Source = "default" | "file" | "variable" | "flag";

/** What was read, also when it can't be used: then `server/check.ts` can still find what else is wrong. */
export interface Reading {
  /** Settings at fault have their defaults. */
  readonly config: Config;
  readonly faults: readonly string[];
  /** Settings whose own value is none. */
  readonly atFault: ReadonlySet<keyof Config>;
  readonly sources: Readonly<Record<keyof Config, Source>>;
}

/** Reads the settings. A flag wins over its variable, that over the file; an empty value means the default. */
export function readConfig({ env = {}, flags = {}, file }: Sources): Reading {
  const faults: string[] = [...file?.faults ?? []];
  const values: Record<string, unknown> = {};
  const sources = {} as Record<keyof Config, Source>;
  const atFault = new Set<keyof Config>();

  for (const [key, setting] of rows()) {
    const flag = flags[setting.flag];
    const given = flag ?? env[setting.env] ?? file?.values[setting.env] ?? "";
    const source = flag !== undefined ? "flag" : env[setting.env] !== undefined ? "variable" : "file";
    const name =
      { flag: `--${setting.flag}`, variable: setting.env, file: `${setting.env} in ${file?.path}` }[source];
    sources[key] = given === "" ? "default" : source;
    if (given === "") {
      values[key] = setting.fallback;
    } else if (typeof given === "boolean" && !setting.kind.bare) {
      atFault.add(key);
      faults.push(`${name} needs a value: give ${setting.kind.expects}`);
    } else {
      values[key] = setting.kind.parse(String(given));
      if (values[key] === undefined) {
        atFault.add(key);
        faults.push(faultOf(setting, name, String(given)));
      }
    }
  }

  faults.push(...faultsBetween(values as Config));
  for (const [key, { fallback }] of rows()) if (atFault.has(key)) values[key] = fallback;
  const settings = Object.values<Setting<unknown>>(SETTINGS);
  const variables = [...settings, ...Object.values(CLIENT_VARIABLES)].map(({ env }) => env);
  faults.push(...unknownVariables(env, variables));
  return { config: Object.freeze(values) as Config, faults, atFault, sources };
}

/** Faults of settings that contradict each other. One that is at fault itself is undefined here, and not compared. */
function faultsBetween(config: Config): string[] {
  const faults: string[] = [];
  const { host, open, apiKeys, apiKeysFile, jwtSecret, jwtPublicKey, jwksUrl, processes } = config;
  const isClosed = [apiKeys, apiKeysFile, jwtSecret, jwtPublicKey, jwksUrl].some((given) =>
    given !== undefined
  );
  if (host !== undefined && !isLoopback(host) && open === false && !isClosed) {
    faults.push(
      `HOST "${host}" can be reached from other machines, where anyone could then listen as any user: set ` +
        "USERWIRE_API_KEYS and a way to verify tokens such as USERWIRE_JWT_SECRET, or set USERWIRE_OPEN=true if " +
        "that is meant, or leave HOST out for 127.0.0.1",
    );
  }
  if (processes !== undefined && processes !== 1) faults.push(...faultsOfProcesses(config, isClosed));
  else if (processes === 1 && config.opsPort !== undefined) {
    faults.push(
      "USERWIRE_OPS_PORT is where several processes are asked together: set USERWIRE_PROCESSES too, or leave it out " +
        "and ask at PORT",
    );
  }
  if (config.redisUrl !== undefined && config.redisUrlFile !== undefined) {
    faults.push("REDIS_URL and REDIS_URL_FILE say the same thing: set one of them, and leave the other out");
  }
  const { redisUrl, channelPrefix } = config;
  if (redisUrl !== undefined && channelPrefix !== undefined) {
    const fault = databaseFault(parseRedisUrl(redisUrl), channelPrefix);
    if (fault !== undefined) faults.push(`${SETTINGS.redisUrl.env} ${fault}`);
  }
  for (const pair of [["tlsCert", "tlsKey"], ["redisCert", "redisKey"]] as const) {
    const missing = pair.find((key) => config[key] === undefined);
    const given = pair.find((key) => config[key] !== undefined);
    if (!missing || !given) continue;
    faults.push(`${SETTINGS[given].env} needs ${SETTINGS[missing].env} beside it: set both, or neither`);
  }
  const { webhookUrl, webhookSecrets, webhookEvents } = config;
  if (webhookUrl !== undefined && webhookSecrets === undefined) {
    faults.push(
      "USERWIRE_WEBHOOK_URL needs USERWIRE_WEBHOOK_SECRETS, by which the backend knows who calls: make one with " +
        "`userwire webhook secret`",
    );
  }
  if (webhookUrl === undefined && webhookSecrets !== undefined) {
    faults.push("USERWIRE_WEBHOOK_SECRETS needs USERWIRE_WEBHOOK_URL beside it: set both, or neither");
  }
  const tellsDefault = webhookEvents === undefined || webhookEvents === SETTINGS.webhookEvents.fallback;
  if (webhookUrl === undefined && !tellsDefault) {
    faults.push(
      "USERWIRE_WEBHOOK_EVENTS needs USERWIRE_WEBHOOK_URL, which says who is told: set it, or leave both out",
    );
  }
  return faults;
}

/** Faults of settings that only matter to several processes. */
function faultsOfProcesses(config: Config, isClosed: boolean): string[] {
  const { host, port, opsHost, opsPort, open, redisUrl, redisUrlFile } = config;
  const faults: string[] = [];
  if (redisUrl === undefined && redisUrlFile === undefined) {
    faults.push(
      "USERWIRE_PROCESSES needs Redis, without which a process reaches only its own sockets: set REDIS_URL, or leave " +
        "USERWIRE_PROCESSES out",
    );
  }
  if (port === 65_535 && opsPort === undefined) {
    faults.push("USERWIRE_OPS_PORT has no default when PORT is 65535: set it, or another PORT");
  }
  if (port !== 0 && port === opsPort && host === opsHost) {
    faults.push(
      `USERWIRE_OPS_PORT must not be PORT, ${port}: set another, or leave it out (default: ${port + 1})`,
    );
  }
  if (opsHost !== undefined && !isLoopback(opsHost) && open === false && !isClosed) {
    faults.push(
      `USERWIRE_OPS_HOST "${opsHost}" can be reached from other machines, where anyone could then read the metrics: ` +
        "set USERWIRE_API_KEYS, or USERWIRE_OPEN=true if that is meant, or leave USERWIRE_OPS_HOST out for 127.0.0.1",
    );
  }
  return faults;
}

function faultOf(setting: Setting<unknown>, name: string, given: string): string {
  const { kind, fallback, fallbackText } = setting;
  const found = !kind.isSecret ? JSON.stringify(given) : "something else (not shown: it may hold a secret)";
  const remedy = fallback === undefined ? "or leave it out" : `or leave it out (default: ${fallbackText})`;
  return `${name} must be ${kind.expects}, but is ${found}: correct it, ${remedy}`;
}

/** The table, in its order. */
export function rows(): [keyof Config, Setting<unknown>][] {
  return Object.entries(SETTINGS) as [keyof Config, Setting<unknown>][];
}
