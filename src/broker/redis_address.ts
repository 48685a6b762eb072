/**
 * Where a Redis is and how to get in, read from its URL:
 *
 *     redis://[[user]:password@]host[:port][/database]     TCP
 *     rediss://…                                           TLS
 *     unix://[[user]:password@]/path/to/socket             unix socket
 */
import type { RedisTls } from "../redis.ts";

export interface RedisAddress {
  readonly transport: "tcp" | "tls" | "unix";
  /** TCP and TLS only. */
  readonly hostname: string;
  readonly port: number;
  /** Unix socket only. */
  readonly path: string;
  /** TLS only; unset: the public certificate authorities, and no certificate of ours. */
  readonly tls?: RedisTls | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
}

const DEFAULT_PORT = 6379;

/** @throws {TypeError} when it is no URL of Redis. Its message does not show the URL, which may hold a password. */
export function parseRedisUrl(text: string): RedisAddress {
  const url = URL.parse(text);
  if (url === null) {
    throw new TypeError(
      "The Redis URL can't be read: write it as redis://[[user]:password@]host[:port][/database]",
    );
  }
  const transport = ({ "redis:": "tcp", "rediss:": "tls", "unix:": "unix" } as const)[url.protocol];
  if (!transport) {
    throw new TypeError(`Redis URLs start with redis://, rediss:// or unix://, not ${url.protocol}//`);
  }
  const hostname = url.hostname.replace(/^\[(.*)\]$/, "$1") || "127.0.0.1";
  const port = Number(url.port || DEFAULT_PORT);
  const path = decodeURIComponent(url.pathname);
  return {
    transport,
    hostname,
    port,
    path,
    username: url.username === "" ? undefined : decodeURIComponent(url.username),
    password: url.password === "" ? undefined : decodeURIComponent(url.password),
  };
}
