/** The settings of `deploy/nginx.conf` in a real nginx: what its users rely on, and that nothing gets lost behind it. */
import { assertEquals, assertMatch } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Page } from "../packages/playwright.ts";
import type { Session } from "../../src/session/session.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { stretched, until } from "../../testkit/deadline.ts";
import { startNginx } from "../../testkit/nginx.ts";
import { findNginx, findRedisServer, NGINX_MISSING } from "../../testkit/programs.ts";
import { numbers, sendAll } from "../../testkit/nodes.ts";
import type { Proxy } from "../../testkit/proxy.ts";
import { endureRollingRestart } from "../../testkit/rolling_restart.ts";
import { Service } from "../../testkit/service.ts";
import { SseClient } from "../../testkit/sse_client.ts";

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

/** What keeps a network's WebSockets from getting through: nginx as it comes, which passes no Upgrade on. */
const NO_UPGRADE = ["proxy_set_header Upgrade ''", "proxy_set_header Connection ''"];

Deno.test({
  name: "Behind nginx server-sent events come at once, with buffering and without, over HTTP/1.1 and HTTP/2",
  ignore,
  async fn(t) {
    await using certificates = await Certificates.make();
    const tls = { ca: certificates.ca, cert: certificates.cert("server"), key: certificates.key("server") };
    await using service = await Service.start({ USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
    for (const buffering of ["on", "off"]) {
      const lines = [`proxy_buffering ${buffering}`, ...NO_UPGRADE];
      await using proxy = await startNginx([service.server.url], tls, { lines });
      for (const http2 of [false, true]) {
        await t.step(`buffering ${buffering}, ${http2 ? "HTTP/2" : "HTTP/1.1"}`, async () => {
          using client = Deno.createHttpClient({ caCerts: [tls.ca], http2, http1: !http2 });
          await using alice = await SseClient.open(`${proxy.url}v1/events?username=alice`, { client });
          await alice.next("hi");
          for (const n of numbers(1, 3)) {
            await sendAll(service, n, n);
            await alice.until(() => alice.data.length === n, `message ${n} before the next is sent`);
          }
        });
        await service.isEmpty();
      }
    }
    await t.step("one that holds back what says it must not", async () => {
      const lines = ["proxy_buffering on", "proxy_ignore_headers X-Accel-Buffering", ...NO_UPGRADE];
      await using proxy = await startNginx([service.server.url], tls, { lines });
      using client = Deno.createHttpClient({ caCerts: [tls.ca] });
      await using alice = await SseClient.open(`${proxy.url}v1/events?username=alice`, { client });
      await sendAll(service, 4, 4);
      // It lets go when its own buffer is full, or at the end of the stream, when all is there.
      await service.fetch("/v1/users/alice/connections", { method: "DELETE" }).then(({ body }) =>
        body?.cancel()
      );
      await alice.ended();
      assertEquals([alice.data, alice.of("bye").length], [[4], 1]);
    });
  },
});

Deno.test({
  name: "Behind an nginx that blocks WebSockets a page in a real browser gets everything all the same",
  ignore: ignore || isBrowserMissing,
  async fn() {
    await using certificates = await Certificates.make();
    const tls = { ca: certificates.ca, cert: certificates.cert("server"), key: certificates.key("server") };
    await using service = await Service.start({ USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
    await using browser = await launchBrowser();
    await using context = await browser.newContext({ ignoreHTTPSErrors: true });
    const open = async (proxy: Proxy) => {
      const page = await context.newPage();
      page.setDefaultTimeout(stretched(20_000));
      await page.goto(`${proxy.url}client.js`);
      return page;
    };
    // The page's own policy forbids what `waitForFunction` does.
    const holds = (page: Page, what: string) => until(() => page.evaluate<boolean>(what), what);
    await using proxy = await startNginx([service.server.url], tls, { lines: NO_UPGRADE });
    // The library, which finds out that sockets are blocked, and does without.
    const page = await open(proxy);
    await page.evaluate(`(async () => {
      const { connect } = await import("/client.js");
      globalThis.data = [];
      globalThis.client = connect("/", { user: "alice", backoff: { baseMs: 20, maxMs: 100 } });
      client.on("message", (message) => data.push(message.data));
    })()`);
    await holds(page, "client.state === 'open'");
    assertEquals(service.logged("connection opened").at(-1)!.fields.mode, "sse");
    const sent = await service.server.app.publisher.send("alice", 1, { waitAckMs: 10_000 });
    assertEquals(sent.acked, 1);
    // A browser's own EventSource, without the library; it goes on where it was by itself.
    const bare = await open(proxy);
    await bare.evaluate(`(() => {
      globalThis.data = [];
      globalThis.opened = 0;
      const source = new EventSource("/v1/events?username=alice");
      source.addEventListener("hi", () => opened++);
      source.addEventListener("m", (event) => data.push(JSON.parse(event.data).data));
      source.addEventListener("gap", (event) => data.push(event.data));
    })()`);
    await holds(bare, "opened === 1");
    await sendAll(service, 2, 3);
    for (const member of service.server.app.connections.live()) (member as Session).expired();
    await sendAll(service, 4, 6);
    await holds(bare, "opened === 2");
    await sendAll(service, 7, 8);
    await holds(page, "data.length === 8");
    await holds(bare, "data.length === 7");
    assertEquals([await page.evaluate("data"), await bare.evaluate("data")], [numbers(1, 8), numbers(2, 8)]);
  },
});
