/**
 * A real nginx with the settings of `deploy/nginx.conf`, in front of services. Only the addresses and the
 * certificate are others. It ends with the test.
 */
import { assert } from "@std/assert";
import { OwnPort } from "./own_port.ts";
import { findNginx, NGINX_MISSING } from "./programs.ts";
import { Proxy, type ProxyTls } from "./proxy.ts";

const CONFIG = new URL("../deploy/nginx.conf", import.meta.url);

/**
 * Resolves when a service answers through it.
 * @param options.lines Put among the settings of the place that leads to the services, and in the stead of their like.
 */
export async function startNginx(
  serviceUrls: readonly string[],
  tls: ProxyTls,
  { lines = [] }: { lines?: readonly string[] } = {},
): Promise<Proxy> {
  const program = findNginx();
  if (program === undefined) throw new Error(NGINX_MISSING);
  const port = OwnPort.take();
  const dir = await Deno.makeTempDir({ prefix: "userwire-nginx-" });
  const nodes = serviceUrls.map((url) => `  server ${new URL(url).host} max_fails=0;\n`);
  const replacements = {
    "listen 443 ": `listen 127.0.0.1:${port} `,
    "/etc/ssl/userwire.pem": tls.cert,
    "/etc/ssl/userwire.key": tls.key,
  };
  let server = await Deno.readTextFile(CONFIG);
  for (const [from, to] of Object.entries(replacements)) {
    assert(server.includes(from), `deploy/nginx.conf has "${from}"`);
    server = server.replace(from, to);
  }
  const place = "    proxy_pass http://userwire;\n";
  assert(server.includes(place), `deploy/nginx.conf has "${place}"`);
  for (const line of lines) {
    const name = /^proxy_set_header \S+|^\S+/.exec(line)![0];
    server = server.replaceAll(RegExp(`^ {4}${name} .*;\\n`, "gm"), "");
  }
  server = server.replace(place, `${place}${lines.map((line) => `    ${line};\n`).join("")}`);
  const listed = /(?:^ {2}server \S+ max_fails=0;\n)+/m;
  assert(listed.test(server), "deploy/nginx.conf has a list of nodes");
  server = server.replace(listed, nodes.join(""));
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
events { worker_connections 10000; }
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
