/**
 * A real nginx with the settings of `deploy/nginx.conf`, in front of two services. Only the addresses and the
 * certificate are others. It ends with the test.
 */
import { assert } from "@std/assert";
import { OwnPort } from "./own_port.ts";
import { findNginx, NGINX_MISSING } from "./programs.ts";
import { Proxy, type ProxyTls } from "./proxy.ts";

const CONFIG = new URL("../deploy/nginx.conf", import.meta.url);

/** Resolves when a service answers through it. */
export async function startNginx(serviceUrls: readonly string[], tls: ProxyTls): Promise<Proxy> {
  const program = findNginx();
  if (program === undefined) throw new Error(NGINX_MISSING);
  const port = OwnPort.take();
  const dir = await Deno.makeTempDir({ prefix: "userwire-nginx-" });
  const [first, second] = serviceUrls.map((url) => new URL(url).host);
  const replacements = {
    "listen 443 ": `listen 127.0.0.1:${port} `,
    "127.0.0.1:8765": first!,
    "127.0.0.1:8766": second!,
    "/etc/ssl/userwire.pem": tls.cert,
    "/etc/ssl/userwire.key": tls.key,
  };
  let server = await Deno.readTextFile(CONFIG);
  for (const [from, to] of Object.entries(replacements)) {
    assert(server.includes(from), `deploy/nginx.conf has "${from}"`);
    server = server.replace(from, to);
  }
  await Deno.writeTextFile(`${dir}/userwire.conf`, server);
  // What Debian's own main file has, in a folder of the test's.
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${dir}/${name};`).join("\n  ");
  await Deno.writeTextFile(
    `${dir}/main.conf`,
    `${Deno.uid() === 0 ? "user root;" : ""}
daemon off;
worker_processes 1;
pid ${dir}/pid;
error_log ${dir}/error.log;
events {}
http {
  access_log off;
  ${temporary}
  include ${dir}/userwire.conf;
}
`,
  );
  return await Proxy.start({
    ...{ name: "nginx", program, port, tls, dir },
    args: ["-e", `${dir}/error.log`, "-p", dir, "-c", `${dir}/main.conf`],
  });
}
