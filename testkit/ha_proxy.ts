/**
 * A real HAProxy with the settings of `deploy/haproxy.cfg`, in front of up to four services. It ends with the test:
 *
 *     await using proxy = await startHaProxy([service.url]);
 */
import { fileURLToPath } from "node:url";
import { OwnPort } from "./own_port.ts";
import { findHaProxy, HAPROXY_MISSING } from "./programs.ts";
import { Proxy, type ProxyTls } from "./proxy.ts";

const CONFIG = fileURLToPath(new URL("../deploy/haproxy.cfg", import.meta.url));

/** Resolves when a service answers through it. */
export async function startHaProxy(serviceUrls: readonly string[], tls?: ProxyTls): Promise<Proxy> {
  const program = findHaProxy();
  if (program === undefined) throw new Error(HAPROXY_MISSING);
  const port = OwnPort.take();
  const dir = await Deno.makeTempDir({ prefix: "userwire-haproxy-" });
  // One file holds both.
  const cert = `${dir}/both.pem`;
  if (tls) {
    await Deno.writeTextFile(cert, await Deno.readTextFile(tls.cert) + await Deno.readTextFile(tls.key));
  }
  const nodes = serviceUrls.map((url, i) => [`NODE_${i + 1}`, new URL(url).host]);
  return await Proxy.start({
    ...{ name: "HAProxy", program, port, tls, dir },
    args: ["-q", "-f", CONFIG],
    env: {
      BIND: `127.0.0.1:${port}`,
      ...Object.fromEntries(nodes),
      ...(tls && { CERT: cert }),
    },
  });
}
