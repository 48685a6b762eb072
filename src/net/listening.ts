/** Where one can listen, and in words why one can't. */
import { ConfigError, messageOf } from "../protocol/errors.ts";

/** An address, with the settings that it comes from. */
export interface ListenAddress {
  readonly host: string;
  /** 0 for a free one. */
  readonly port: number;
  /** Names of the settings. */
  readonly names: { readonly host: string; readonly port: string };
}

/**
 * Sees whether nobody listens there, also where listeners would share the port: whether one is there already shows only to
 * one that does not share it.
 * @returns The port, or a free one in the place of 0.
 * @throws {ConfigError}
 */
export function freePort({ host, port, names }: ListenAddress): number {
  try {
    const listener = Deno.listen({ hostname: host, port });
    const { port: free } = listener.addr;
    listener.close();
    return free;
  } catch (error) {
    throw new ConfigError([listenFault(error, { host, port, names })]);
  }
}

/** Why an address can't be listened on, as a sentence. */
export function listenFault(error: unknown, { host, port, names }: ListenAddress): string {
  return error instanceof Deno.errors.AddrInUse
    ? `${names.port}: ${port} is in use on ${host}: stop what listens there, or set another (0 takes a free one)`
    : error instanceof Deno.errors.AddrNotAvailable
    ? `${names.host}: ${host} is not an address of this machine: set one that is, or 127.0.0.1`
    : error instanceof Deno.errors.PermissionDenied
    ? `${names.port}: ${port} may not be used by this user: set one above 1023`
    : `${names.host}, ${names.port}: can't listen on ${host}:${port}: ${messageOf(error)}`;
}

/** The URL of what listens there, as it can be opened on this machine. */
export function listenUrl(protocol: "http" | "https", host: string, port: number): string {
  const name = host === "0.0.0.0" || host === "::" ? "localhost" : host.includes(":") ? `[${host}]` : host;
  return `${protocol}://${name}:${port}/`;
}
