/** The settings of `deploy/nginx.conf` in a real nginx: what its users rely on, and that nothing gets lost behind it. */
import { assertEquals, assertMatch } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { stretched } from "../../testkit/deadline.ts";
import { startNginx } from "../../testkit/nginx.ts";
import { findNginx, findRedisServer, NGINX_MISSING } from "../../testkit/programs.ts";
import { endureRollingRestart } from "../../testkit/rolling_restart.ts";
import { Service } from "../../testkit/service.ts";

const ignore = findNginx() === undefined;
if (ignore) console.warn(NGINX_MISSING);

Deno.test({
  name: "Behind nginx a rolling restart of three nodes fails no send and no handshake, and loses nothing",
  ignore: ignore || findRedisServer() === undefined,
  async fn() {
    // Of three, since nginx does not know yet that the first is back when the second goes.
    await endureRollingRestart(startNginx, { until: "ready", nodes: 3, clients: 40, perSecond: 60 });
  },
});

Deno.test({
  name:
    "Behind nginx the own page works in a real browser, on a port of its own, and tickets lead back there",
  ignore: ignore || isBrowserMissing,
  async fn() {
    await using certificates = await Certificates.make();
    const tls = { ca: certificates.ca, cert: certificates.cert("server"), key: certificates.key("server") };
    await using service = await Service.start({
      USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
    });
    const url = service.server.url;
    await using proxy = await startNginx([url, url], tls);
    await using browser = await launchBrowser();
    await using context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    page.setDefaultTimeout(stretched(10_000));
    await page.goto(proxy.url);
    await page.getByRole("button", { name: "Run the demo" }).click();
    await page.getByText("alice reached 2 sockets").waitFor();

    using client = Deno.createHttpClient({ caCerts: [tls.ca] });
    const bought = await fetch(`${proxy.url}v1/tickets`, {
      client,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"user":"alice"}',
    });
    const { ticket, url: socketUrl } = await bought.json();
    assertEquals(socketUrl, `${proxy.url.replace("https:", "wss:")}ws?ticket=${ticket}`);
    const batch = { items: [{ to: "alice", data: "x".repeat(60_000) }] };
    const large = { items: Array(40).fill(batch.items[0]) };
    const response = await fetch(`${proxy.url}v1/messages`, {
      client,
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(large),
    });
    await response.body?.cancel();
    assertEquals(response.status, 200, "a batch beyond nginx' own limit");
    const origin = await fetch(`${proxy.url}healthz`, {
      client,
      headers: { origin: "https://evil.example" },
    });
    assertMatch(await origin.text(), /USERWIRE_ALLOWED_ORIGINS/);
  },
});
