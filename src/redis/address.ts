/**
 * Where a Redis is and how to get in, read from its URL:
 *
 *     redis://[[user][:password]@]host[:port][/database]     TCP
 *     rediss://…                                             TLS
 *     unix://[[user][:password]@]/path/to/socket[?db=number] unix socket
 *     redis+sentinel://[[user][:password]@]host[:port][,host[:port]…]/master[/database]
 *     rediss+sentinel://…                                    Sentinels, who know where the master is
 *     redis://[[user][:password]@]host[:port],host[:port]…   several nodes of one cluster; rediss:// too
 *
 * With Sentinels user, password and database are the master's. That a Redis is a node of a cluster is found out by asking.
 */

/** What `rediss://` needs beyond the public certificate authorities; all PEM text. */
export interface RedisTls {
  readonly ca?: string;
  /** The client's own certificate, and its private key. */
  readonly cert?: string;
  readonly key?: string;
}

export interface RedisAddress {
  readonly transport: "tcp" | "tls" | "unix";
  /** TCP and TLS only. */
  readonly hostname: string;
  readonly port: number;
  /** Unix socket only. */
  readonly path: string;
  /** TLS only; unset: the public certificate authorities, and no certificate of ours. */
  readonly tls?: RedisTls | undefined;
  /** A user may have no password. */
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly database: number;
}

/** A host and a port. */
export type Place = Pick<RedisAddress, "hostname" | "port">;

/** What a URL says: an address; or, with Sentinels, all of it but the host and the port, which they know. */
export interface RedisUrl extends RedisAddress {
  /** Of a cluster, where several nodes are named; the address is that of the first. */
  readonly seeds?: readonly Place[];
  readonly sentinel?: {
    readonly places: readonly Place[];
    /** What the Sentinels call the master. */
    readonly master: string;
  };
}

const DEFAULT_PORT = 6379;
const SENTINEL_PORT = 26_379;

/** What a setting with such a URL must be, as the words after "must be" or "must hold". */
export const REDIS_URL_FORM =
  "a URL such as redis://user:password@localhost:6379/0 (rediss:// for TLS), unix:///path/to/redis.sock, " +
  "redis+sentinel://host:26379,host:26379/master, or redis://host:6379,host:6379 for a cluster, with special " +
  "characters in the password percent-encoded";

const SENTINEL = /^(rediss?)\+sentinel:\/\/([^@/?#]*@)?([^@/?#]+)\/([\w.-]+)(\/\d+)?$/i;
/** The second and later ones may be whole URLs with the same scheme and login. */
const SEEDS = /^(rediss?:\/\/(?:[^@/?#]*@)?)([^@/?#,]+(?:,(?:\1)?[^@/?#,]+)+)\/?$/i;
/** What of it is written out: nothing that the parser would pass over or make up. */
const STRICT = /^(?:rediss?:\/\/[^/?#]+(?:\/\d*)?(?:[?#].*)?|unix:\/\/(?:[^@/]*@)?\/[^/?#][^?#]*(?:\?.*)?)$/i;
// deno-lint-ignore no-control-regex -- control characters are exactly what is refused
const BLANK = /[\s\u0000-\u001f\u007f-\u009f]/u;

/** Whether it is a URL of Redis as a setting must be, which is stricter than `parseRedisUrl`. */
export function isRedisUrl(text: string): boolean {
  if (BLANK.test(text) || ![STRICT, SENTINEL, SEEDS].some((form) => form.test(text))) return false;
  try {
    parseRedisUrl(text);
    return true;
  } catch {
    return false;
  }
}

/** @throws {TypeError} when it is no URL of Redis. Its message does not show the URL, which may hold a password. */
export function parseRedisUrl(text: string): RedisUrl {
  const [, scheme, credentials = "", hosts, master, database = ""] = SENTINEL.exec(text) ?? [];
  if (master !== undefined) {
    const places = hosts!.split(",").map((host) => placeOf(host, SENTINEL_PORT));
    const login = parseRedisUrl(`${scheme}://${credentials}sentinel${database}`);
    return { ...login, hostname: "", port: 0, sentinel: { places, master } };
  }
  const several = SEEDS.exec(text);
  if (several) {
    const [, login, list] = several as unknown as [string, string, string];
    const seeds = list.replaceAll(login, "").split(",").map((host) => placeOf(host, DEFAULT_PORT));
    return { ...parseRedisUrl(`${login}seed`), ...seeds[0]!, seeds };
  }
  // URL takes no login without a host, which is how one is written for a socket.
  const login = /^unix:\/\/([^@/]*)@/.exec(text)?.[1];
  const url = URL.parse(login === undefined ? text : text.replace(`${login}@`, ""));
  if (url === null || url.hostname.includes(",")) {
    throw new TypeError(
      "The Redis URL can't be read: write it as redis://[[user]:password@]host[:port][/database], or, with several " +
        "nodes of a cluster, as redis://[[user]:password@]host[:port],host[:port]",
    );
  }
  const transport = ({ "redis:": "tcp", "rediss:": "tls", "unix:": "unix" } as const)[url.protocol];
  if (!transport) {
    throw new TypeError(
      `Redis URLs start with redis://, rediss://, unix:// or redis+sentinel://, not ${url.protocol}//`,
    );
  }
  const [username, password] = login === undefined
    ? [url.username, url.password]
    : /^([^:]*):?(.*)$/s.exec(login)!.slice(1) as [string, string];
  const path = decodeURIComponent(url.pathname);
  return {
    transport,
    hostname: url.hostname.replace(/^\[(.*)\]$/, "$1") || "127.0.0.1",
    port: Number(url.port || DEFAULT_PORT),
    path,
    username: username === "" ? undefined : decodeURIComponent(username),
    password: password === "" ? undefined : decodeURIComponent(password),
    database: Number(transport === "unix" ? url.searchParams.get("db") : path.slice(1)) || 0,
  };
}

/** @throws {TypeError} when it is no `host[:port]`. */
function placeOf(host: string, defaultPort: number): Place {
  const url = URL.parse(`redis://${host}`);
  if (url === null || url.hostname === "" || url.host !== host) {
    throw new TypeError(
      "The Redis URL can't be read: its hosts must be names or addresses, each with a port or without",
    );
  }
  return { hostname: url.hostname.replace(/^\[(.*)\]$/, "$1"), port: Number(url.port || defaultPort) };
}

/** Whether both lead to the same place; who logs in there may differ. */
export function isSamePlace(one: RedisAddress, other: RedisAddress): boolean {
  return (["transport", "hostname", "port", "path", "database"] as const).every((key) =>
    one[key] === other[key]
  );
}

/** What is wrong with sharing a Redis by database number, as the words after the name of its URL; undefined if nothing. */
export function databaseFault({ database }: RedisAddress, channelPrefix: string): string | undefined {
  if (channelPrefix !== "" || !(database > 0)) return undefined;
  return `names database ${database}, but channels know no databases, and another installation on this Redis would ` +
    "get the same users' messages: set USERWIRE_CHANNEL_PREFIX to a prefix of its own, or use database 0";
}

/**
 * What is wrong with what TLS is given, as the words after "redisTls"; undefined if nothing. It is looked at no closer
 * than for what is mistaken often: Node passes over a path in place of a certificate, and Deno names another reason.
 */
export function tlsFault({ transport }: RedisAddress, { ca, cert, key }: RedisTls): string | undefined {
  if ((ca ?? cert ?? key) === undefined) return undefined;
  if (transport !== "tls") return " is for addresses with rediss://, and this one is without TLS";
  if ((cert === undefined) !== (key === undefined)) {
    return ".cert and .key belong together: give both or neither";
  }
  const isOf = (what: string, text: string | undefined) =>
    text === undefined || new RegExp(`-----BEGIN [A-Z ]*${what}-----`).test(text);
  const rest = "in PEM: give what the file holds, not its path";
  if (!isOf("CERTIFICATE", ca)) return `.ca must be a certificate ${rest}`;
  if (!isOf("CERTIFICATE", cert)) return `.cert must be a certificate ${rest}`;
  return isOf("PRIVATE KEY", key) ? undefined : `.key must be a private key ${rest}`;
}
