/**
 * Where a Redis is and how to get in, read from its URL:
 *
 *     redis://[[user][:password]@]host[:port][/database]     TCP
 *     rediss://…                                             TLS
 *     unix://[[user][:password]@]/path/to/socket[?db=number] unix socket
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

const DEFAULT_PORT = 6379;

/** @throws {TypeError} when it is no URL of Redis. Its message does not show the URL, which may hold a password. */
export function parseRedisUrl(text: string): RedisAddress {
  // URL takes no login without a host, which is how one is written for a socket.
  const login = /^unix:\/\/([^@/]*)@/.exec(text)?.[1];
  const url = URL.parse(login === undefined ? text : text.replace(`${login}@`, ""));
  if (url === null) {
    throw new TypeError(
      "The Redis URL can't be read: write it as redis://[[user]:password@]host[:port][/database]",
    );
  }
  const transport = ({ "redis:": "tcp", "rediss:": "tls", "unix:": "unix" } as const)[url.protocol];
  if (!transport) {
    throw new TypeError(`Redis URLs start with redis://, rediss:// or unix://, not ${url.protocol}//`);
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

/** Whether both lead to the same place; who logs in there may differ. */
export function isSamePlace(one: RedisAddress, other: RedisAddress): boolean {
  return (["transport", "hostname", "port", "path", "database"] as const).every((key) =>
    one[key] === other[key]
  );
}
