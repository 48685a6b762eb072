/**
 * Pages of other sites: a real browser on a page of another origin tries to take over a service that it can reach,
 * by WebSocket, by fetch, and by a host name of its own that leads to 127.0.0.1 (DNS rebinding).
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Browser, Page } from "../packages/playwright.ts";
import { newKey } from "../../src/auth/keys.ts";
import { call, CLOSED, KEY, protocolsFor, tokenFor } from "../../testkit/closed.ts";
import { serveOther } from "../../testkit/cli_terminal.ts";
import { stretched, until, withDeadline } from "../../testkit/deadline.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";

/** Every host name leads to this machine, as an attacker's name server would say. */
const HOST_RULES = "--host-resolver-rules=MAP *.example 127.0.0.1";
/** What a page waits for itself has no time limit of the browser's. */
const ANSWER_MS = 20_000;

async function openPage(browser: Browser, url: string): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(stretched(10_000));
  await page.goto(url);
  return page;
}

/** What becomes of a WebSocket that the page opens: "open", or how it closed. */
function tryToConnect(page: Page, url: string, protocols: string[] = []): Promise<string> {
  const outcome = page.evaluate(([url, ...protocols]) =>
    new Promise<string>((resolve) => {
      const socket = new WebSocket(url!, protocols);
      socket.onopen = () => {
        socket.onclose = null;
        socket.close();
        resolve("open");
      };
      socket.onclose = ({ code }) => resolve(`closed ${code}`);
    }), [url, ...protocols]);
  return withDeadline(outcome, ANSWER_MS, "a socket to open or to close");
}

/** What becomes of a request that the page makes. */
function tryToFetch(page: Page, url: string, init: RequestInit = {}): Promise<string> {
  const outcome = page.evaluate(async ([url, init]) => {
    try {
      const response = await fetch(url as string, init as RequestInit);
      return `${response.status} ${await response.text()}`;
    } catch {
      return "failed";
    }
  }, [url, init] as [string, unknown]);
  return withDeadline(outcome, ANSWER_MS, "a request to end");
}

Deno.test({
  name: "Pages of other sites in a real browser",
  ignore: isBrowserMissing,
  async fn(t) {
    await using browser = await launchBrowser({ args: [HOST_RULES] });
    await using elsewhere = serveOther(() =>
      new Response("<title>evil</title>", { headers: { "content-type": "text/html" } })
    );
    const page = await openPage(browser, elsewhere.url.replace("127.0.0.1", "evil.example"));

    await t.step("can't open a socket of a service in open mode, nor send", async () => {
      await using service = await Service.start();
      const { port } = service.server;
      for (const host of [`127.0.0.1:${port}`, `localhost:${port}`]) {
        for (const url of [`ws://${host}/ws?username=alice`, `ws://${host}/`]) {
          assertEquals(await tryToConnect(page, url), "closed 1006", url);
        }
        const url = `http://${host}/v1/users/alice/messages`;
        const init = { method: "POST", body: "hi", headers: { "content-type": "text/plain" } };
        assertEquals(await tryToFetch(page, url, init), "failed");
        assertEquals(await tryToFetch(page, url, { ...init, mode: "no-cors" }), "0 ", "opaque, and refused");
      }
      const history = await service.fetch("/v1/users/alice/messages");
      assertEquals((await history.json()).items, [], "nothing was sent");
      assertEquals(service.server.app.connections.size, 0);
    });

    await t.step("can't, by a name of their own that leads to this machine", async () => {
      await using service = await Service.start();
      const { port } = service.server;
      // The page comes from the service's own port, by the attacker's name: the same origin, says the browser.
      const rebound = await browser.newPage();
      const response = await rebound.goto(`http://evil.example:${port}/`);
      assertEquals(response!.status(), 421);
      assertMatch(await response!.text(), /only its own names are answered/);
      assertEquals(await tryToConnect(rebound, `ws://evil.example:${port}/ws?username=alice`), "closed 1006");
      assertMatch(await tryToFetch(rebound, `http://evil.example:${port}/v1/users/alice`), /^421 /);
      // The service's own page can.
      await rebound.goto(`http://localhost:${port}/`);
      assertEquals(await tryToConnect(rebound, `ws://localhost:${port}/ws?username=alice`), "open");
      await rebound.close();
    });

    await t.step(
      "are told what to set, when they call by a name that the service does not know",
      async () => {
        const origin = new URL(page.url()).origin;
        await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: origin });
        const url = `http://push.example:${service.server.port}`;
        const client = await Deno.readTextFile(new URL("../../src/web/client.js", import.meta.url));
        const told = page.evaluate(async ([client, url]) => {
          const { connect } = await import(`data:text/javascript,${encodeURIComponent(client!)}`);
          const told: Promise<{ code: string; message: string }> = new Promise((resolve) =>
            connect(url, { user: "alice" }).on("error", resolve)
          );
          const { code, message } = await told;
          return [code, message];
        }, [client, url] as string[]);
        const [code, message] = await withDeadline(told, ANSWER_MS, "the client to be told");
        assertEquals(code, "misdirected");
        assertMatch(
          message!,
          /only its own names are answered: call it localhost, or add the origin by which you/,
        );
        // A preflight is answered, so that who shows a key reads the same.
        const init = { headers: { authorization: "Bearer key" } };
        assertMatch(await tryToFetch(page, `${url}/v1/users/alice`, init), /^421 .*misdirected/);
      },
    );

    await t.step("can't with a token either, unless they are on the list", async () => {
      const protocols = protocolsFor(await tokenFor("alice"));
      await using service = await Service.start(CLOSED);
      assertEquals(await tryToConnect(page, service.socketUrl(), protocols), "closed 1006");
      const origin = new URL(page.url()).origin;
      await using listed = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: origin });
      assertEquals(await tryToConnect(page, listed.socketUrl(), protocols), "open");
      assertEquals(
        await tryToConnect(page, listed.socketUrl(), ["userwire.v1"]),
        "closed 1006",
        "being listed is no token",
      );
      const ticket = (await call(listed, "POST /v1/tickets", { body: { user: "alice" } })).body.ticket;
      assertEquals(await tryToConnect(page, `${listed.socketUrl()}?ticket=${ticket}`), "open");
    });
  },
});

Deno.test("In open mode on loopback only names of this machine are answered, and of pages that are allowed", async () => {
  const statusBy = async (service: Service, host: string | null, upgrade: boolean) => {
    const path = upgrade ? service.socketUrl("alice") : service.server.url + "healthz";
    const headers = { Host: host, ...(!upgrade && { Connection: "close", Upgrade: null }) };
    await using socket = await RawSocket.open(path, { headers });
    return socket.answer.status;
  };
  const mine = [
    "localhost",
    "localhost:1",
    "LOCALHOST:8765",
    "127.0.0.1",
    "127.1.2.3:80",
    "[::1]:8765",
    "app.localhost",
    "0.0.0.0",
  ];
  const others = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.example",
    "192.168.1.1",
    "[2001:db8::1]",
  ];
  await using open = await Service.start();
  await using listed = await Service.start({ USERWIRE_ALLOWED_ORIGINS: "https://evil.example" });
  await using closed = await Service.start(CLOSED);
  for (const upgrade of [false, true]) {
    const good = upgrade ? 101 : 200;
    for (const host of mine) assertEquals(await statusBy(open, host, upgrade), good, host);
    for (const host of others) assertEquals(await statusBy(open, host, upgrade), 421, host);
    assertEquals(await statusBy(listed, "evil.example", upgrade), good);
  }
  // Where everybody has to show something, it does not matter by which name a service is called.
  assertEquals(await statusBy(closed, "push.example", false), 200);
});

Deno.test("The page carries headers that keep it from being framed, sniffed or made to run other scripts", async () => {
  await using service = await Service.start();
  const { headers, body } = await call(service, "GET /");
  const policy = headers.get("content-security-policy")!;
  assertMatch(policy, /default-src 'self'/);
  assertMatch(policy, /frame-ancestors 'none'/);
  assert(!/unsafe/.test(policy));
  assertEquals([headers.get("x-content-type-options"), headers.get("x-frame-options")], ["nosniff", "DENY"]);
  assertEquals(headers.get("referrer-policy"), "no-referrer");
  assert(!/<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=/i.test(body), "nothing inline");
});

Deno.test({
  name: "The page of a closed service takes a key and a token, and puts neither into an address or a command",
  ignore: isBrowserMissing,
  async fn(t) {
    await using browser = await launchBrowser({ args: [HOST_RULES] });
    await t.step("with a token", () => connectFromPage(browser, { withToken: true }));
    await t.step(
      "with a key alone, which buys tickets",
      () => connectFromPage(browser, { withToken: false }),
    );
    await t.step(
      "a token shows its user's messages on no card of another that does not say so",
      () => connectWithHerToken(browser),
    );
    await t.step("a key that may not buy tickets is told so", async () => {
      await using service = await Service.start({
        ...CLOSED,
        USERWIRE_API_KEYS: `${KEY.line},${READER.line}`,
      });
      const page = await openPage(browser, `${service.server.url}#try`);
      await page.getByLabel("API key").fill(READER.key);
      for (const wire of ["userwire.v1", "raw"]) {
        await connectAs(page, "alice", wire);
        const card = page.getByRole("article").last();
        await card.getByText(/The key "reader" lacks the scope "tickets"/).waitFor();
      }
      await page.close();
    });
  },
});

/** Alice's token is in the field: what cards of either name say and get. */
async function connectWithHerToken(browser: Browser): Promise<void> {
  await using service = await Service.start(CLOSED);
  const page = await openPage(browser, `${service.server.url}#try`);
  const card = (name: string) => page.getByRole("article", { name, exact: true });
  await page.getByLabel("API key").fill(KEY.key);
  await page.getByLabel("Token").fill(await tokenFor("alice"));
  await page.getByRole("button", { name: "Run the demo" }).click();
  await card("bob, connection 1").getByText("the token must be one for bob, and still good").first()
    .waitFor();
  for (const name of ["alice, connection 1", "alice, connection 2"]) {
    await card(name).getByText("Open", { exact: true }).waitFor();
  }
  await connectAs(page, "bob", "raw");
  await card("bob, connection 2").getByText("Open, as the user of the token").waitFor();
  await until(
    async () => await service.server.app.publisher.count("alice") === 3,
    "two framed sockets and the raw one to be alice's",
  );
  await call(service, "POST /v1/users/alice/messages", { body: "for alice" });
  await card("alice, connection 1").getByText("for alice").waitFor();
  await card("bob, connection 2").getByText("for alice").waitFor();
  assertEquals(await card("bob, connection 1").getByText("for alice").count(), 0);
  await page.close();
}

const READER = newKey("reader", { scopes: ["read"] });

async function connectAs(page: Page, username: string, wire: string): Promise<void> {
  await page.getByLabel("Username").fill(username);
  await page.getByRole("radio", { name: wire, exact: true }).check();
  await page.getByRole("button", { name: "Connect", exact: true }).click();
}

/** Connects on both wires, sends, and looks for secrets where none may be. */
async function connectFromPage(browser: Browser, { withToken }: { withToken: boolean }): Promise<void> {
  await using service = await Service.start(CLOSED);
  const page = await openPage(browser, `${service.server.url}#try`);
  const tickets: string[] = [];
  page.on("response", async (response) => {
    if (response.url().endsWith("/v1/tickets")) tickets.push((await response.json()).ticket);
  });
  const urls: string[] = [];
  page.on("request", (request) => urls.push(request.url()));
  page.on("websocket", (socket) => urls.push(socket.url()));
  const token = await tokenFor("alice");
  await page.getByLabel("API key").fill(KEY.key);
  if (withToken) await page.getByLabel("Token").fill(token);
  for (const wire of ["userwire.v1", "raw"]) {
    await connectAs(page, "alice", wire);
    await page.locator('.card[data-state="open"]').nth(wire === "raw" ? 1 : 0).waitFor();
  }
  await until(
    async () => await service.server.app.publisher.count("alice") === 2,
    "both sockets to be alice's",
  );
  await page.getByLabel("To", { exact: true }).fill("alice");
  await page.getByLabel("Payload", { exact: true }).fill('"hello"');
  await page.getByRole("button", { name: /^Send/ }).click();
  await page.locator("#send-outcome", { hasText: "reached 2 sockets" }).waitFor();
  const html = await page.content();
  assert(urls.length > 2);
  assertEquals(tickets.length, withToken ? 0 : 2, "a ticket for each socket");
  for (const secret of [KEY.key, token, token.slice(-20), ...tickets]) {
    assert(![...urls, page.url()].some((url) => url.includes(secret)));
    assert(!html.includes(secret));
  }
  assertEquals(
    await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length"),
    0,
  );
  await page.close();
}
