/**
 * The built client in a real Chromium, as pages use it: imported from the service by a page of the service and by one
 * of another site, through offline times, reloads and restarts; and what the console page makes of it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { launchBrowser } from "../packages/browser.ts";
import { browserScenarios, Tab } from "./browser_tab.ts";
import { until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";

const { scenario, run } = browserScenarios("Client in a browser");

scenario("Client gets every kind of message in a page of the service", async (browser) => {
  await using service = await Service.start();
  await using tab = await Tab.open(browser, service.server.url);
  await tab.connect();
  await tab.state("open");
  await service.send("alice", { order: 7 });
  await service.send("alice", "text");
  await service.send("alice", Uint8Array.of(0, 255));
  await tab.received(3);
  const { data, states } = await tab.told();
  assertEquals(data, [
    { data: { order: 7 }, replayed: false },
    { data: "text", replayed: false },
    { bytes: [0, 255], replayed: false },
  ]);
  assertEquals(states.at(-1), "open");
  assertMatch(await tab.page.evaluate("client.position"), /\.3\.[\w-]{8}$/);
  await tab.page.evaluate("client.close()");
  await service.isEmpty();
});

scenario("Client in a browser that goes offline and comes back misses nothing", async (browser) => {
  await using service = await Service.start();
  await using tab = await Tab.open(browser, service.server.url);
  await tab.connect();
  await tab.state("open");
  await service.send("alice", 1);
  await tab.received(1);
  await tab.context.setOffline(true);
  await tab.state("offline");
  await until(async () => await service.sockets("alice") === 0, "the service to see her go");
  await service.send("alice", 2);
  await tab.context.setOffline(false);
  await tab.state("open");
  await service.send("alice", 3);
  await tab.received(3);
  const { data, gaps } = await tab.told();
  assertEquals([data.map(({ data }) => data), gaps], [[1, 2, 3], []]);
});

scenario("Client in a browser comes back when its service does", async (browser) => {
  using port = OwnPort.take();
  await using service = await Service.start({ PORT: `${port}` });
  await using tab = await Tab.open(browser, service.server.url);
  await tab.connect();
  await tab.state("open");
  await service.server.shutdown();
  await tab.holds("told.lost.length >= 3");
  await using again = await Service.start({ PORT: `${port}` });
  await tab.state("open");
  await again.send("alice", 1);
  await tab.received(1);
  const { lost, gaps } = await tab.told();
  // Browsers don't say why a handshake failed.
  assertEquals(lost.slice(0, 3), [[1012, true], [1006, false], [1006, false]]);
  assertEquals(gaps.length, 1, "A service in memory has forgotten the epoch");
});

scenario("Client goes on after a reload, by what the browser kept", async (browser) => {
  await using service = await Service.start();
  await using tab = await Tab.open(browser, service.server.url);
  const options = `{ user: "alice", store: storedIn(localStorage, "alice") }`;
  await tab.connect(options);
  await tab.state("open");
  await service.send("alice", 1);
  await tab.received(1);
  await tab.holds(`localStorage.getItem("alice")?.split(".")[1] === "1"`);
  await tab.page.reload();
  await until(async () => await service.sockets("alice") === 0, "the service to see her go");
  await service.send("alice", 2);
  await tab.connect(options);
  await tab.received(1);
  assertEquals((await tab.told()).data, [{ data: 2, replayed: true }]);
});

scenario("Client can be imported by a page of another site that may connect", async (browser) => {
  const html = (service: string) =>
    `<!doctype html><title>app</title><output></output>
    <script type="module">
      import { connect } from "${service}client.js";
      const output = document.querySelector("output");
      for await (const { data } of connect("${service}", { user: "alice" })) output.append(data);
    </script>`;
  let page = "";
  const site = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    return new Response(page, { headers: { "content-type": "text/html" } });
  });
  try {
    const origin = `http://127.0.0.1:${site.addr.port}`;
    await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: origin });
    page = html(service.server.url);
    await using tab = await Tab.open(browser, origin);
    await until(async () => await service.sockets("alice") === 1, "the page to connect");
    await service.send("alice", "hello");
    await tab.page.locator("output", { hasText: "hello" }).waitFor();
  } finally {
    await site.shutdown();
  }
});

scenario("Client in a page that may not connect is told which origin to allow", async (browser) => {
  let page = "";
  const site = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    return new Response(page, { headers: { "content-type": "text/html" } });
  });
  const client = await Deno.readTextFile(new URL("../../src/web/client.js", import.meta.url));
  try {
    const origin = `http://127.0.0.1:${site.addr.port}`;
    await using service = await Service.start();
    page = `<!doctype html><title>app</title><output></output><script type="module">
      const { connect } = await import("data:text/javascript;base64,${
      new TextEncoder().encode(client).toBase64()
    }");
      const client = connect("${service.server.url}", { user: "alice" });
      client.on("error", ({ code, message }) => document.querySelector("output").append(code, ": ", message));
    </script>`;
    await using tab = await Tab.open(browser, origin);
    const told = tab.page.locator("output", { hasText: "origin_not_allowed" });
    await told.waitFor();
    assertMatch(
      await told.innerText(),
      new RegExp(`pages of ${origin}: add that to USERWIRE_ALLOWED_ORIGINS`),
    );
    assertMatch(JSON.stringify(service.logged("handshake refused")), /add it to USERWIRE_ALLOWED_ORIGINS/);
  } finally {
    await site.shutdown();
  }
});

scenario("Client goes on when the browser brings its page back", async () => {
  await using browser = await launchBrowser({ keepsPages: true });
  await using service = await Service.start();
  await using tab = await Tab.open(browser, service.server.url);
  await tab.connect();
  await tab.page.evaluate(`addEventListener("pagehide", () => client.pause());
    addEventListener("pageshow", ({ persisted }) => { told.isKept = persisted; client.resume(); })`);
  await tab.state("open");
  await service.send("alice", 1);
  await tab.received(1);
  await tab.page.goto(`${service.server.url}healthz`);
  await until(async () => await service.sockets("alice") === 0, "the service to see her go");
  await service.send("alice", 2);
  await tab.page.goBack({ waitUntil: "commit" });
  await tab.holds("globalThis.told?.isKept");
  await tab.received(2);
  assertEquals((await tab.told()).data.map(({ data }) => data), [1, 2]);
});

scenario("Client goes on where the browser keeps its page, whose socket is cut meanwhile", async () => {
  await using browser = await launchBrowser({ keepsPages: true });
  await using service = await Service.start();
  await using tab = await Tab.open(browser, service.server.url);
  await tab.connect();
  await tab.page.evaluate(`addEventListener("pageshow", ({ persisted }) => told.isKept = persisted)`);
  await tab.state("open");
  await tab.page.goto(`${service.server.url}healthz`);
  await service.fetch("/v1/users/alice/connections?code=1012", { method: "DELETE" }).then((answer) =>
    answer.body?.cancel()
  );
  await service.send("alice", 1);
  await tab.page.goBack({ waitUntil: "commit" });
  await tab.holds("globalThis.told?.isKept");
  await tab.received(1);
});

scenario(
  "Console page resumes a connection that was closed, and shows what is missing",
  async (browser) => {
    await using service = await Service.start({ USERWIRE_HISTORY: "2" });
    await using tab = await Tab.open(browser, `${service.server.url}?user=alice`);
    const { page } = tab;
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    const card = page.getByRole("article", { name: "alice, connection 1", exact: true });
    await card.getByText("Open", { exact: true }).waitFor();
    await service.send("alice", "first");
    await card.locator("pre", { hasText: "first" }).waitFor();
    await card.getByRole("button", { name: "Disconnect" }).click();
    await service.isEmpty();
    for (const text of ["second", "third", "fourth", "fifth"]) await service.send("alice", text);
    await card.getByRole("button", { name: "Reconnect" }).click();
    await card.locator(".messages > li").nth(3).waitFor();
    const items = await card.locator(".messages > li").allInnerTexts();
    assertMatch(items[0]!, /replay[^]*fifth$/);
    assertMatch(items[1]!, /replay[^]*fourth$/);
    assertEquals(items[2], "2 messages came too late to be kept: seq 2 to 3");
    assertMatch(items[3]!, /first$/);
    assert(!/replay/.test(items[3]!));
    assertMatch(await card.innerText(), /userwire\.v1 · 3 messages/);

    await tab.context.setOffline(true);
    await card.getByText("Offline: back when the network is").waitFor();
    await tab.context.setOffline(false);
    await card.getByText("Open", { exact: true }).waitFor();
  },
);

run();
