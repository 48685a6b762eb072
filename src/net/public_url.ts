/** Where clients connect, for answers that have to say it: behind a proxy a request alone does not tell. */
import type { OwnHost } from "./own_host.ts";

/** The path of sockets below the address by which clients know the service. */
const SOCKET_PATH = "/ws";

/**
 * Tells the address of sockets. The setting wins, else it is the address by which the request came.
 * @param publicUrl As `USERWIRE_PUBLIC_URL` is read: ws:// or wss://, without a slash at its end.
 * @returns A function of the name in a request; the URL is the caller's own.
 */
export function publicAddress(publicUrl: string | undefined): (own: OwnHost) => URL {
  if (publicUrl !== undefined) return () => new URL(publicUrl + SOCKET_PATH);
  return ({ protocol, hostname, port }) => {
    const url = new URL(`${protocol.replace("http", "ws")}//${hostname}${SOCKET_PATH}`);
    url.port = port;
    return url;
  };
}
