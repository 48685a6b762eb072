/**
 * By which name a request came, and what follows from it: whose pages may call, which names are answered, and that a
 * Host is nothing but a host. Over HTTP/1.1 byte for byte, over HTTP/2 with a real browser.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { call, CLOSED, KEY } from "../../testkit/closed.ts";
import { serveOther } from "../../testkit/cli_terminal.ts";
import { stretched } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";

/** Asks over HTTP/1.1 with exactly these headers. */
async function ask(
  service: Service,
  request: string,
  headers: Readonly<Record<string, string | null>>,
): Promise<{ status: number; headers: Headers; body: string }> {
  const [method, path] = request.split(" ") as [string, string];
  const isHandshake = path.startsWith("/ws");
  const plain = { "Connection": "close", "Upgrade": null };
  await using socket = await RawSocket.open(new URL(path, service.server.url), {
    method,
    headers: { ...(!isHandshake && plain), ...headers },
  });
  return socket.answer;
}

Deno.test("A page of the own host may call and connect, however host and port are written, and by http and https only", async () => {
  await using service = await Service.start(CLOSED);
  const cases: [host: string, origin: string, isOwn: boolean][] = [
    ["push.example", "http://push.example", true],
    // A proxy that ends TLS: the scheme is another, the host is not.
    ["push.example", "https://push.example", true],
    ["push.example:443", "https://push.example", true],
    ["push.example:80", "http://push.example", true],
    ["push.example:8443", "https://push.example:8443", true],
    ["PUSH.example", "https://push.example", true],
    ["[::1]:8765", "http://[::1]:8765", true],
    ["push.example:80", "https://push.example", false],
    ["push.example:443", "http://push.example", false],
    ["push.example", "https://push.example:8443", false],
    ["push.example", "https://evil.push.example", false],
    ["push.example", "app://push.example", false],
    ["push.example", "chrome-extension://push.example", false],
    ["push.example", "ftp://push.example", false],
    ["push.example", "null", false],
    ["push.example", "file://", false],
    ["push.example", "https://push.example/path", false],
    ["push.example", "https://user@push.example", false],
    ["push.example", "push.example", false],
  ];
  for (const [host, origin, isOwn] of cases) {
    const headers = { Host: host, Origin: origin };
    assertEquals(
      (await ask(service, "GET /healthz", headers)).status,
      isOwn ? 200 : 403,
      `${host} ${origin}`,
    );
    // Past the origin nobody says who it is.
    const raw = await ask(service, "GET /ws", { ...headers, "Sec-WebSocket-Protocol": "userwire.v1" });
    assertEquals(raw.status, isOwn ? 401 : 403, `${host} ${origin}`);
  }
});

Deno.test("An app whose library makes the Origin of the address it dials is let in, and by no other host", async () => {
  await using service = await Service.start(CLOSED);
  const cases: [host: string, origin: string, isOwn: boolean][] = [
    ["push.example", "wss://push.example", true],
    ["push.example:443", "wss://push.example", true],
    ["push.example:8765", "ws://push.example:8765", true],
    ["push.example", "https://push.example:443", true],
    ["push.example", "https://push.example/", true],
    ["push.example", "HTTPS://Push.Example", true],
    ["push.example", "wss://evil.example", false],
    ["push.example", "wss://push.example:8443", false],
    ["push.example", "wss://push.example/ws", false],
    ["push.example", "wss://push.example/, https://evil.example", false],
    ["push.example", "https://push.example?", false],
    ["push.example", "https://push.example#", false],
    ["push.example", "https://push.example@evil.example/", false],
  ];
  for (const [host, origin, isOwn] of cases) {
    const answer = await ask(service, "GET /ws", {
      Host: host,
      Origin: origin,
      "Sec-WebSocket-Protocol": "userwire.v1",
    });
    assertEquals(answer.status, isOwn ? 401 : 403, `${host} ${origin}`);
  }
});

Deno.test("A Host that is not just a host and a port is refused, for calls, sends and handshakes", async () => {
  await using service = await Service.start();
  await using bob = await RawSocket.open(service.socketUrl("bob"));
  assertEquals(bob.answer.status, 101);
  const { port } = service.server;
  const hosts = [
    "127.0.0.1/v1/users/bob/connections?why=",
    "127.0.0.1/v1/users/bob/messages?x=",
    "127.0.0.1?x",
    "127.0.0.1#x",
    "user@127.0.0.1",
    `user:pw@127.0.0.1:${port}`,
    "127.0.0.1\\x",
    "127.0.0.1, localhost",
    "local host",
    "localhost%2f",
    "localhost:99999",
    "localhost:1:2",
    "localhost:http",
    "[::1",
    "[localhost]",
    "",
  ];
  for (const host of hosts) {
    for (const request of ["DELETE /healthz", "POST /healthz", "GET /ws?username=bob", "GET /"]) {
      const { status, body } = await ask(service, request, { Host: host, "Content-Length": "0" });
      assertEquals(status, 400, `${request} of "${host}"`);
      // A bracket that is not closed Deno refuses itself, without a body.
      if (body !== "") assertMatch(JSON.parse(body).detail, /Host/);
    }
  }
  assertEquals(await service.sockets("bob"), 1, "nobody was closed");
  assertEquals((await (await service.fetch("/v1/users/bob/messages")).json()).items, [], "nothing was sent");

  // The address in the request line stands above Host, so one of them lies.
  using client = await Deno.connect({ hostname: "127.0.0.1", port });
  await client.write(new TextEncoder().encode(
    "GET http://localhost/healthz HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
  ));
  assertMatch(await new Response(client.readable).text(), /^HTTP\/1.1 400 /);
});

Deno.test("The host that a trusted proxy was called by counts for origins and tickets, and a stranger's word does not", async () => {
  await using trusting = await Service.start({ ...CLOSED, USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
  await using wary = await Service.start(CLOSED);
  // As nginx does when it is told nothing about Host.
  const proxied = { Host: "userwire_upstream", "X-Forwarded-Host": "push.example:8443" };
  const cases: [headers: Record<string, string>, origin: string, isOwn: boolean][] = [
    [proxied, "https://push.example:8443", true],
    [{ ...proxied, "X-Forwarded-Proto": "https" }, "https://push.example:8443", true],
    [{ ...proxied, "X-Forwarded-Proto": "https" }, "http://push.example:8443", false],
    [{ ...proxied, "X-Forwarded-Host": "push.example:8443, inner" }, "https://push.example:8443", true],
    [proxied, "http://userwire_upstream", false],
    [{ ...proxied, "X-Forwarded-Host": "evil.example/x?" }, "http://userwire_upstream", true],
  ];
  for (const [headers, origin, isOwn] of cases) {
    const { status } = await ask(trusting, "GET /healthz", { ...headers, Origin: origin });
    assertEquals(status, isOwn ? 200 : 403, JSON.stringify([headers, origin]));
  }
  assertEquals(
    (await ask(wary, "GET /healthz", { ...proxied, Origin: "https://push.example:8443" })).status,
    403,
  );
});

Deno.test("A rebound page can't pass for this machine by what it says a proxy was called", async () => {
  await using service = await Service.start({ USERWIRE_TRUSTED_PROXIES: "127.0.0.1" });
  const forged = { Host: "evil.example", "X-Forwarded-Host": "localhost" };
  assertEquals((await ask(service, "GET /healthz", forged)).status, 421);
  assertEquals((await ask(service, "GET /ws?username=alice", forged)).status, 421);
  // A proxy on this machine is called by a name of the world, and passes it on as it likes.
  const proxied = { Host: "localhost:8765", "X-Forwarded-Host": "evil.example" };
  assertEquals((await ask(service, "GET /healthz", proxied)).status, 421);
  await using listed = await Service.start({
    USERWIRE_TRUSTED_PROXIES: "127.0.0.1",
    USERWIRE_ALLOWED_ORIGINS: "https://*.push.example",
  });
  for (const name of ["a.push.example", "a.b.push.example:8443"]) {
    assertEquals((await ask(listed, "GET /healthz", { Host: name })).status, 200, name);
  }
  for (const name of ["push.example", "apush.example", "a.push.example.evil"]) {
    assertEquals((await ask(listed, "GET /healthz", { Host: name })).status, 421, name);
  }
});

Deno.test("Addresses that mean every interface are this machine's own names", async () => {
  await using service = await Service.start();
  const { port } = service.server;
  for (const host of ["0.0.0.0", `0.0.0.0:${port}`, "[::]", `[::]:${port}`, "[::ffff:0.0.0.0]"]) {
    assertEquals((await ask(service, "GET /healthz", { Host: host })).status, 200, host);
    assertEquals((await ask(service, "GET /ws?username=alice", { Host: host })).status, 101, host);
    const strange = { Host: host, Origin: "https://evil.example" };
    assertEquals((await ask(service, "GET /ws?username=alice", strange)).status, 403, host);
  }
});

// ---------------------------------------------------------------------------------------------------------
// Pages on the list

const SHOP = "https://shop.example";

Deno.test("Pages on the list may use the API: preflights are answered, and every answer can be read", async () => {
  await using service = await Service.start({
    ...CLOSED,
    USERWIRE_ALLOWED_ORIGINS: `${SHOP}, https://*.team.example, null, file://`,
  });
  const preflight = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
  };
  const path = "/v1/users/alice/messages";
  for (const origin of [SHOP, "https://a.team.example", "https://a.b.team.example", "null", "file://"]) {
    const { status, headers, body } = await ask(service, `OPTIONS ${path}`, { Origin: origin, ...preflight });
    assertEquals([status, body], [204, ""], origin);
    assertEquals(headers.get("access-control-allow-origin"), origin);
    assertMatch(headers.get("access-control-allow-methods")!, /\bPOST\b.*\bDELETE\b/);
    for (const name of preflight["Access-Control-Request-Headers"].split(",")) {
      assert(headers.get("access-control-allow-headers")!.toLowerCase().split(/, */).includes(name), name);
    }
    assert(headers.get("vary")!.toLowerCase().includes("origin"));
    assertEquals(headers.get("access-control-allow-credentials"), null);
    assertEquals(headers.get("access-control-max-age"), "600");
  }
  for (const asked of ["true", "false", null]) {
    const { headers } = await ask(service, `OPTIONS ${path}`, {
      Origin: SHOP,
      ...preflight,
      "Access-Control-Request-Private-Network": asked,
    });
    assertEquals(headers.get("access-control-allow-private-network"), asked === "true" ? "true" : null);
  }
  const plain = await ask(service, "GET /healthz", { Origin: SHOP, ...preflight });
  assertEquals([plain.status, plain.body], [200, '{"status":"ok"}'], "it asks for nothing but what it says");
  for (
    const origin of [
      "https://evil.example",
      "http://shop.example",
      "https://shop.example:8443",
      "https://team.example",
      "https://ateam.example",
      "http://a.team.example",
      "https://a.team.example.evil",
    ]
  ) {
    for (const request of [`OPTIONS ${path}`, "GET /healthz"]) {
      const { status, headers } = await ask(service, request, { Origin: origin, ...preflight });
      assertEquals([status, headers.get("access-control-allow-origin")], [403, null], origin);
      assertEquals(headers.get("vary"), "Origin");
    }
  }

  const asShop = { headers: { origin: SHOP } };
  const sent = await call(service, `POST ${path}`, {
    body: 1,
    headers: { origin: SHOP, "idempotency-key": "k" },
  });
  const again = await call(service, `POST ${path}`, {
    body: 1,
    headers: { origin: SHOP, "idempotency-key": "k" },
  });
  const answers = [
    sent,
    again,
    await call(service, `POST ${path}`, { ...asShop, body: 1, key: "uw_nobody" }),
    await call(service, `GET ${path}?limit=x`, asShop),
    await call(service, "GET /v1/nothing", asShop),
    await call(service, "PATCH /healthz", asShop),
    await call(service, "POST /v1/messages", {
      headers: { origin: SHOP, "content-type": "text/css" },
      body: 1,
    }),
    await call(service, "POST /v1/users/online", { ...asShop, body: { users: ["alice"] } }),
    await call(service, "GET /ws", asShop),
  ];
  assertEquals(answers.map(({ status }) => status), [202, 202, 401, 400, 404, 405, 415, 200, 426]);
  for (const { status, headers } of answers) {
    assertEquals(headers.get("access-control-allow-origin"), SHOP, `${status}`);
    assertMatch(headers.get("vary")!, /\borigin\b/i, `${status}`);
    assertMatch(headers.get("access-control-expose-headers")!, /Retry-After/i, `${status}`);
  }
  // What a page may read must be what there is.
  assertEquals(again.headers.get("idempotent-replayed"), "true");
  const exposed = again.headers.get("access-control-expose-headers")!.toLowerCase();
  for (
    const name of ["idempotent-replayed", "userwire-counted", "retry-after", "allow", "www-authenticate"]
  ) {
    assert(exposed.includes(name), name);
  }
  // A cache between must not give the answer for nobody to a page.
  assertMatch((await call(service, "GET /healthz")).headers.get("vary") ?? "", /origin/i);
});

Deno.test("What can be listed as an origin is read strictly, and what opens a door wide is said aloud at the start", async () => {
  await using service = await Service.start({
    USERWIRE_ALLOWED_ORIGINS: "https://*.Team.example:8443,null,file:///,app://Shell,https://shop.example/",
  });
  const said = service.log.records
    .filter(({ level }) => level === "warn")
    .map(({ event, fields }) => `${event} ${JSON.stringify(fields)}`)
    .join("\n");
  assertMatch(said, /https:\/\/\*\.team\.example:8443/);
  assertMatch(said, /every page.*below|any.*subdomain/i);
  assertMatch(said, /null/);
  assertMatch(said, /file:\/\//);
  assert(!said.includes("shop.example"));
  assert(!said.includes("app://shell"));
  await using wide = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: "*" });
  assert(wide.log.records.some(({ level, fields }) => level === "warn" && fields.origin === "*"));
  for (
    const bad of [
      "https://*",
      "https://*.",
      "https://*example.com",
      "https://a.*.example.com",
      "https://*.*.example.com",
      "*.example.com",
      "app://*.example.com",
      "https://*.10.0.0.1",
      "nul",
    ]
  ) {
    const refused = await Service.start({ USERWIRE_ALLOWED_ORIGINS: bad }).then(
      async (service) => (await service[Symbol.asyncDispose](), false),
      () => true,
    );
    assert(refused, bad);
  }
});

Deno.test({
  name: "A page on the list sends and reads answers in a real browser, errors too",
  ignore: isBrowserMissing,
  async fn() {
    await using elsewhere = serveOther(() =>
      new Response("<title>shop</title>", { headers: { "content-type": "text/html" } })
    );
    await using service = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: elsewhere.url });
    await using browser = await launchBrowser();
    const page = await browser.newPage();
    page.setDefaultTimeout(stretched(10_000));
    await page.goto(elsewhere.url);
    const answers = await page.evaluate(async ([url, key]) => {
      const send = async (key: string) => {
        const response = await fetch(`${url}v1/users/alice/messages`, {
          method: "POST",
          headers: {
            "authorization": `Bearer ${key}`,
            "content-type": "application/json",
            "idempotency-key": "k",
          },
          body: "7",
        });
        return [response.status, (await response.json()).stored, response.headers.get("idempotent-replayed")];
      };
      return [await send(key!), await send(key!), await send("wrong")];
    }, [service.server.url, KEY.key]);
    assertEquals(answers, [[202, true, null], [202, true, "true"], [401, undefined, null]]);
  },
});

// ---------------------------------------------------------------------------------------------------------
// HTTP/2

Deno.test({
  name: "Over HTTP/2 the own page works in a real browser, and the page of another site does not",
  ignore: isBrowserMissing,
  async fn(t) {
    await using certificates = await Certificates.make();
    const tls = {
      USERWIRE_TLS_CERT: certificates.cert("server"),
      USERWIRE_TLS_KEY: certificates.key("server"),
    };
    await using browser = await launchBrowser({ args: ["--host-resolver-rules=MAP *.example 127.0.0.1"] });
    await using context = await browser.newContext({ ignoreHTTPSErrors: true });
    const protocolOf = "performance.getEntriesByType('navigation')[0].nextHopProtocol";

    await t.step("the console connects, sends and shows what came", async () => {
      await using service = await Service.start(tls);
      const page = await context.newPage();
      page.setDefaultTimeout(stretched(10_000));
      const faults: string[] = [];
      page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
      await page.goto(service.server.url.replace("127.0.0.1", "localhost"));
      assertEquals(await page.evaluate(protocolOf), "h2");
      await page.getByRole("button", { name: "Run the demo" }).click();
      await page.getByText("alice reached 2 sockets").waitFor();
      assertEquals(faults, []);
      await page.close();
    });

    await t.step("a page of another origin is refused", async () => {
      await using service = await Service.start(tls);
      await using other = await Service.start(tls);
      const page = await context.newPage();
      // Not the console, whose own policy would keep it from trying.
      await page.goto(`${other.server.url}healthz`);
      const outcome = await page.evaluate(
        (url) =>
          fetch(url, { method: "POST", body: "x", mode: "no-cors" }).then(() => "opaque", () => "failed"),
        `${service.server.url}v1/users/alice/messages`,
      );
      assertEquals(outcome, "opaque", "whatever it was");
      using client = Deno.createHttpClient({ caCerts: [certificates.ca] });
      const history = await fetch(`${service.server.url}v1/users/alice/messages`, { client });
      assertEquals((await history.json()).items, [], "nothing was sent");
      await page.close();
    });

    await t.step("a name of another's that leads to this machine is refused", async () => {
      await using service = await Service.start(tls);
      const page = await context.newPage();
      const response = await page.goto(`https://evil.example:${service.server.port}/`);
      assertEquals(response!.status(), 421);
      assertEquals(await page.evaluate(protocolOf), "h2");
      await page.close();
    });

    await t.step("a page by plain http is not the own page of a service behind TLS", async () => {
      await using service = await Service.start(tls);
      using client = Deno.createHttpClient({ caCerts: [certificates.ca], http2: true, http1: false });
      const { port } = service.server;
      for (const [scheme, status] of [["https", 200], ["http", 403], ["app", 403]] as const) {
        const response = await fetch(`https://localhost:${port}/healthz`, {
          client,
          headers: { origin: `${scheme}://localhost:${port}` },
        });
        await response.body?.cancel();
        assertEquals(response.status, status, scheme);
      }
    });
  },
});
