/**
 * `deno task test:deploy`: the settings of `deploy/` for proxies in full strength, which is too long for a run of all tests:
 * a rolling restart of four nodes, twice around, under 1,000 sockets. The same with fewer nodes is among the tests.
 */
import { startHaProxy } from "../../testkit/ha_proxy.ts";
import { startNginx } from "../../testkit/nginx.ts";
import { findHaProxy, findNginx, HAPROXY_MISSING, NGINX_MISSING } from "../../testkit/programs.ts";
import { endureRollingRestart } from "../../testkit/rolling_restart.ts";

const SIZE = { nodes: 4, clients: 1_000, perSecond: 100 };

if (findHaProxy() === undefined) console.warn(HAPROXY_MISSING);
if (findNginx() === undefined) console.warn(NGINX_MISSING);

Deno.test({
  name: "Behind HAProxy a rolling restart of four nodes fails no send and no handshake, and loses nothing",
  ignore: findHaProxy() === undefined,
  fn: async () => void await endureRollingRestart(startHaProxy, { until: "seen", ...SIZE }),
});

Deno.test({
  name: "Behind nginx a rolling restart of four nodes fails no send and no handshake, and loses nothing",
  ignore: findNginx() === undefined,
  fn: async () => void await endureRollingRestart(startNginx, { until: "ready", ...SIZE }),
});
