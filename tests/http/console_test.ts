/**
 * The console for who runs the service, in a real Chromium: a node's numbers as they come, nodes, users, groups, the doctor.
 * Its demo, and connecting and sending, are in `page_test.ts`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { newKey } from "../../src/auth/keys.ts";
import { EVERY_MS } from "../../src/metrics/samples.ts";
import type { Look } from "../../src/server/app.ts";
import { CLOSED, tokenFor } from "../../testkit/closed.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { HeldIntervals } from "../../testkit/held_timers.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { RedisServer } from "../../testkit/redis_server.ts";
import { findRedisServer } from "../../testkit/programs.ts";
import { Service } from "../../testkit/service.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";
import { axe } from "../packages/axe.ts";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Browser, Page } from "../packages/playwright.ts";
import { ConsolePage, UNANSWERED } from "./console_page.ts";

/** The scenarios share one browser, which takes longer to start than any of them to run. */
const scenarios: [name: string, run: (browser: Browser) => Promise<void>][] = [];

function browserTest(name: string, run: (browser: Browser) => Promise<void>): void {
  scenarios.push([name, run]);
}

Deno.test({
  name: "Console",
  ignore: isBrowserMissing || findRedisServer() === undefined,
  async fn(t) {
    await using browser = await launchBrowser();
    for (const [name, run] of scenarios) await t.step(name, () => run(browser));
  },
});

const LOOK: Look = (nodes) =>
  Promise.resolve([
    { check: "deno", state: "ok", says: "version 2" },
    { check: "redis", state: "fault", says: `<b>away</b> for ${nodes}`, remedy: "start it" },
    { check: "keys", state: "warning", says: "open mode" },
  ]);

/** A row of a chart: what it shows at the moment that is looked at, and since the start. */
async function numbersOf(page: Page, chart: string): Promise<Record<string, string[]>> {
  const rows = await page.locator(`#chart-${chart} tbody tr`).all();
  const read = rows.map(async (row) => [
    await row.locator("th").innerText(),
    await row.locator("td").allInnerTexts(),
  ]);
  return Object.fromEntries(await Promise.all(read));
}

/** Waits for a total, which stands beside a rate that may be the same number. */
async function totalOf(page: Page, chart: string, line: string, total: RegExp): Promise<void> {
  const row = page.locator(`#chart-${chart} tbody tr`, { hasText: line });
  await row.locator("td:last-child", { hasText: total }).waitFor();
}

async function isLive(page: Page): Promise<void> {
  await page.locator('#live[data-state="live"]').waitFor();
}

browserTest("shows the numbers of a node of two, with traffic, as /metrics has them", async (browser) => {
  // The page gets the next numbers when all that they are of is done.
  using samples = new HeldIntervals(EVERY_MS);
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url, USERWIRE_DRAIN_S: "0" };
  await using here = await Service.start({ ...env, USERWIRE_NODE: "here" }, { look: LOOK });
  await using there = await Service.start({ ...env, USERWIRE_NODE: "there" });
  await using _alice = await openClient(here.socketUrl("alice"), "userwire.v1");
  await using _raw = await openClient(here.socketUrl("alice"));
  await using _far = await openClient(there.socketUrl("bob"), "userwire.v1");
  await using console = await ConsolePage.open(browser, `${here.server.url}#overview`);
  const { page } = console;
  await isLive(page);
  for (let n = 0; n < 12; n++) await here.send(["alice", "bob", "carol"][n % 3]!, n);
  await here.send("a b", 1);
  let metrics = new Map<string, number>();
  await until(async () => {
    metrics = parseMetrics(await (await here.fetch("/metrics")).text());
    return metrics.get("userwire_messages_delivered_total") === 8;
  }, "four messages to be written to both sockets of alice");
  const of = (series: string) => String(metrics.get(`userwire_${series}`));
  samples.run();
  await totalOf(page, "sends", "reached", /^8$/);

  const sends = await numbersOf(page, "sends");
  for (const outcome of ["reached", "stored", "offline", "repeated", "refused", "unavailable"]) {
    assertEquals(sends[outcome]![1], of(`sends_total{outcome="${outcome}"}`), outcome);
  }
  assertEquals([sends.reached![1], sends.stored![1], sends.refused![1]], ["8", "4", "1"]);
  assert(Number(sends.reached![0]) > 0, "a rate");
  const connections = await numbersOf(page, "connections");
  assertEquals(connections["WebSocket, frames"]![0], of('connections{mode="v1"}'));
  assertEquals(connections["WebSocket, raw"]![0], of('connections{mode="raw"}'));
  assertEquals(connections.Lagging![0], of("connections_lagging"));
  assertEquals((await numbersOf(page, "deliveries"))["Messages written"]![1], of("messages_delivered_total"));
  assertEquals((await numbersOf(page, "gaps")).Trimmed![1], of('gaps_total{why="trimmed"}'));
  assertEquals((await numbersOf(page, "redis")).Reconnects![1], of("redis_reconnects_total"));
  const [p50, p99] = Object.values(await numbersOf(page, "duration")).map(([now]) => Number(now));
  assert(p50! > 0 && p50! <= p99!, `${p50} ${p99}`);

  // Nodes, and one that drains.
  const nodes = async () =>
    (await page.locator("#nodes tr").allInnerTexts()).map((text) => text.split(/\s+/));
  assertEquals((await nodes()).map(([name]) => name), ["here", "there"]);
  there.server.app.draining.start();
  const drains = page.locator('#nodes tr[data-state="draining"]', { hasText: "there" });
  await until(async () => {
    samples.run(); // there it is noted, and here it is read: whichever comes first
    return await drains.count() === 1;
  }, "the page to say that one drains");

  await assertLooksBack(page);
  await assertFinds(page);

  // Without Redis the node still says how it is, and the others are as they were.
  await redis.stop();
  await until(async () => (await here.readiness()).status === 503, "the node to notice");
  samples.run();
  await page.locator("#chart-redis tbody tr", { hasText: "Away" }).getByText("yes").waitFor();
  await page.getByText(/^as of \d\d:\d\d:\d\d, for now /).waitFor();
  assertEquals(await page.locator("#nodes[data-stale] tr").count(), 2);
  await page.locator("#service-state", { hasText: "Not ready" }).waitFor();
});

/** With the keyboard one looks back, and sees that it is not now. */
async function assertLooksBack(page: Page): Promise<void> {
  const moment = page.getByLabel("Look back");
  await moment.focus();
  await page.keyboard.press("Home");
  assertMatch((await moment.getAttribute("aria-valuetext"))!, /^\d\d:\d\d:\d\d$/);
  assertEquals((await numbersOf(page, "sends")).reached![0], "–", "nothing came before the first");
  await page.keyboard.press("End");
  assertEquals(await moment.getAttribute("aria-valuetext"), "now");
}

/** The doctor of two nodes says the worst first, and as text. */
async function assertFinds(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Check the set-up of this node" }).click();
  await page.getByText(/^1 fault, 1 warning, 1 well/).waitFor();
  const findings = await page.locator("#findings li").allInnerTexts();
  assertMatch(findings[0]!, /✗[\s\S]*redis[\s\S]*<b>away<\/b> for 2[\s\S]*start it/);
}

browserTest("shows nothing as live that is not, says since when, and goes on by itself", async (browser) => {
  using port = OwnPort.take();
  const env = { PORT: `${port}`, USERWIRE_DRAIN_S: "0", USERWIRE_NODE: "one" };
  await using service = await Service.start(env);
  await using console = await ConsolePage.open(browser, `${service.server.url}#overview`);
  const { page } = console;
  await isLive(page);
  await service.send("alice", 1);
  await totalOf(page, "sends", "stored", /^1$/);
  console.forgive(UNANSWERED);
  await service.server.shutdown();
  await page.locator('#live[data-state="lost"]').waitFor();
  assertMatch(
    await page.locator("#live").innerText(),
    /^Not live: .* The last numbers are of \d\d:\d\d:\d\d\.$/,
  );
  for (const chart of ["connections", "sends", "deliveries", "duration", "gaps"]) {
    const shown = Object.values(await numbersOf(page, chart)).flat();
    assertEquals(shown.filter((text) => text !== "–"), [], chart);
  }
  assertEquals(await page.getByLabel("Look back").isDisabled(), true);
  await page.getByText(/it did for the last time at \d\d:\d\d:\d\d/).waitFor();
  assertMatch(await page.locator("#nodes-as-of").innerText(), /^as of \d\d:\d\d:\d\d$/);
  assertEquals(await faultsIn(page), []);

  await using _again = await Service.start({ ...env, USERWIRE_NODE: "two" });
  await isLive(page);
  // Another node's numbers are not drawn on with those of the first.
  await page.getByText("two · version").waitFor();
  assertEquals((await numbersOf(page, "sends")).stored![1], "0");
});

browserTest("opens a stream only while somebody looks", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  const asked: string[] = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  const gone = Promise.withResolvers<void>();
  page.on("requestfailed", (request) => request.url().endsWith("/v1/stats") && gone.resolve());
  assertEquals(asked.filter((path) => path === "/v1/stats"), []);
  await page.getByRole("link", { name: "Overview" }).click();
  await isLive(page);
  assertEquals(asked.filter((path) => path === "/v1/stats"), ["/v1/stats"]);
  await page.getByRole("link", { name: "Users" }).click();
  await withDeadline(gone.promise, 20_000, "the stream to be let go of", () => asked);
  assertEquals(await page.evaluate("document.activeElement.id"), "user-name");
  await page.goBack();
  await isLive(page);
});

browserTest(
  "finds a user: connections on all nodes, messages, and sends, kicks and revokes",
  async (browser) => {
    await using redis = await RedisServer.start();
    const env = { ...CLOSED, REDIS_URL: redis.url, USERWIRE_DRAIN_S: "0" };
    const admin = newKey("admin", { scopes: ["send", "read", "groups", "admin"], users: "*|@*" });
    const keys = { USERWIRE_API_KEYS: admin.line };
    await using here = await Service.start({ ...env, ...keys, USERWIRE_NODE: "here" });
    await using there = await Service.start({ ...env, ...keys, USERWIRE_NODE: "there" });
    const token = await tokenFor("alice", { iat: Math.floor(Date.now() / 1_000) - 60 });
    const bearer = { headers: { authorization: `Bearer ${token}` } };
    await using one = await openClient(here.socketUrl(), { protocols: ["userwire.v1"], ...bearer });
    await using two = await openClient(there.socketUrl(), { protocols: ["userwire.v1"], ...bearer });
    for (const client of [one, two]) await client.nextJson();
    const { publisher } = here.server.app;
    for (let n = 1; n <= 25; n++) await publisher.send("alice", { n });
    await publisher.groups.put("team", ["alice"]);

    await using console = await ConsolePage.open(browser, here.server.url);
    const { page } = console;
    console.forgive(/status of 40[13]/);
    // It begins with the overview, which says what it needs.
    await page.getByText(/Not live: An API key with the scope admin is needed/).waitFor();
    const asked: string[] = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await page.getByLabel("API key").fill("uw_wrong");
    await page.keyboard.press("Enter");
    await page.getByText(/Not live: .*\(401\)/).waitFor();
    await page.getByLabel("API key").fill(admin.key);
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await isLive(page);
    assertEquals(
      asked.filter((path) => path === "/v1/stats").length,
      2,
      "a key that is refused is not tried again",
    );
    await page.getByRole("link", { name: "Users" }).click();
    await page.getByRole("textbox", { name: "Name" }).or(page.getByRole("combobox", { name: "Name" })).fill(
      "alice",
    );
    await page.keyboard.press("Enter");
    await page.getByText("online: 2 connections on 2 nodes").waitFor();
    const rows = page.locator("#user-connections tr");
    const shown = (await rows.allInnerTexts()).join("\n");
    for (const word of ["here", "there", "WebSocket", ".25"]) assert(shown.includes(word), shown);
    const messages = await page.locator("#user-messages pre").allInnerTexts();
    assertEquals([messages.length, messages[0], messages.at(-1)], [20, '{"n":25}', '{"n":6}']);
    assertEquals(await page.locator("#user-groups li").allInnerTexts(), ["@team"]);

    await page.locator("#user-payload").fill('{"from":"console"}');
    await page.locator("#user-send-form").getByRole("button", { name: "Send" }).click();
    await page.getByText("Sent: reached 2 sockets").waitFor();
    await page.locator("#user-messages pre", { hasText: "console" }).waitFor();

    await assertEnds(page, one, two);

    // The key is nowhere but in its field.
    const kept = await page.evaluate(
      "JSON.stringify([location.href, {...localStorage}, {...sessionStorage}, document.cookie, document.documentElement.outerHTML])",
    ) as string;
    assert(!kept.includes(admin.key));
  },
);

/** Closes her second connection, then all that she was ever let in by: it is asked first, and Escape does nothing. */
async function assertEnds(page: Page, one: WsClient, two: WsClient): Promise<void> {
  const rows = page.locator("#user-connections tr");
  await rows.filter({ hasText: "there" }).getByRole("button", { name: "Close" }).click();
  await page.keyboard.press("Escape");
  assertEquals(await rows.count(), 2);
  await rows.filter({ hasText: "there" }).getByRole("button", { name: "Close" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
  await page.getByText("online: 1 connection on 1 node").waitFor();
  assertEquals((await two.closed).code, 4403);
  await page.getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
  await page.getByText("Revoked: what was issued until now lets nobody in").waitFor();
  assertEquals((await one.closed).code, 4401);
  await until(async () => {
    await page.getByRole("button", { name: "Refresh" }).click();
    return await page.locator("#user-state").innerText() === "offline";
  }, "alice to be offline");
}

browserTest(
  "acts as a user, and shows the frames of both directions without what lets in",
  async (browser) => {
    await using service = await Service.start({ ...CLOSED });
    await using console = await ConsolePage.open(browser, `${service.server.url}#try`);
    const { page } = console;
    const token = await tokenFor("alice");
    await page.getByLabel("Token").fill(token);
    await console.connect("alice");
    await console.connect("alice", "raw");
    const { publisher } = service.server.app;
    // A raw socket says who it is when it is open.
    await until(async () => await publisher.count("alice") === 2, "both to be let in");
    await publisher.send("alice", { order: 7 });
    for (const number of [1, 2]) {
      const card = console.card("alice", number);
      await card.getByText(/^Frames/).click();
      await card.locator('.frames li[data-direction="down"]', { hasText: '"order":7' }).waitFor();
    }
    const up = console.card("alice", 2).locator('.frames li[data-direction="up"] code');
    assertEquals(await up.allInnerTexts(), ['{"token":"…"}']);
    assert(!(await page.locator("main").innerText()).includes(token));
  },
);

browserTest("makes, changes, sends to and deletes a group", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, `${service.server.url}#groups`);
  const { page } = console;
  console.forgive(/status of 404/);
  await using _alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  await page.getByRole("textbox", { name: "Name" }).fill("@team");
  await page.keyboard.press("Enter");
  await page.getByText("There is no such group").waitFor();
  await page.getByLabel("Add users").fill("alice bob");
  await page.keyboard.press("Enter");
  await page.getByText("2 users, 1 online").waitFor();
  await page.getByRole("button", { name: "Send to the group" }).click();
  await page.getByText("Sent: reached 1 socket").waitFor();
  await page.getByRole("button", { name: "Remove bob" }).click();
  await page.getByText("1 user, 1 online").waitFor();
  assertEquals(await service.server.app.publisher.groups.of("bob"), []);
  await page.getByRole("button", { name: "Show alice" }).click();
  await page.getByText("online: 1 connection on 1 node").waitFor();
  await page.goBack();
  await page.getByRole("button", { name: "Delete the group" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await page.getByText("The group had 1 user").waitFor();
});

browserTest("shows webhooks where there are some", async (browser) => {
  await using backend = new WebhookReceiver();
  await using service = await Service.start(backend.env);
  await using _alice = await openClient(service.socketUrl("alice"), "userwire.v1");
  await using console = await ConsolePage.open(browser, `${service.server.url}#overview`);
  await totalOf(console.page, "webhooks", "delivered", /^[1-9]$/);
});

browserTest("shows hostile names and messages as text, and asks for nobody else", async (browser) => {
  const evil = `<img/src=x/onerror="alert(1)">`;
  await using service = await Service.start({ USERWIRE_NODE: `<b>${"n".repeat(20)}</b>` }, { look: LOOK });
  await using _client = await openClient(service.socketUrl(evil), "userwire.v1");
  const { publisher } = service.server.app;
  await publisher.groups.put(evil, [evil]);
  for (const payload of [evil, { [evil]: "</pre><script>alert(2)</script>", "__proto__": evil }]) {
    await publisher.send(evil, payload);
  }
  await using console = await ConsolePage.open(browser, `${service.server.url}#overview`);
  const { page } = console;
  await isLive(page);
  assertMatch(await page.locator("#nodes").innerText(), /<b>n+<\/b>/);
  await page.getByRole("link", { name: "Users" }).click();
  await page.locator("#user-name").fill(evil);
  await page.keyboard.press("Enter");
  await page.getByText("online: 1 connection").waitFor();
  assertEquals(await page.locator("#user-groups li").allInnerTexts(), [`@${evil}`]);
  assertEquals((await page.locator("#user-messages pre").allInnerTexts())[1], evil);
  await page.getByRole("link", { name: "Groups" }).click();
  await page.locator("#group-name").fill(evil);
  await page.keyboard.press("Enter");
  await page.locator("#group-users .name", { hasText: evil }).waitFor();
  // A name is a part of a path, whatever it has in it.
  await page.getByRole("link", { name: "Users" }).click();
  console.forgive(/status of 400/);
  for (const name of ["../nodes", "x?limit=1", "#try", "a/../../v1/drain"]) {
    await page.locator("#user-name").fill(name);
    const asked = page.waitForRequest((request) => request.url().includes("/connections"));
    await page.keyboard.press("Enter");
    assertEquals(new URL((await asked).url()).pathname, `/v1/users/${encodeURIComponent(name)}/connections`);
  }
  assertEquals(await page.locator("img").count(), 1);
  assertEquals(await page.locator("script").count(), 1);
});

/** What axe finds, at rest. */
async function faultsIn(page: Page): Promise<string[]> {
  await page.evaluate("document.getAnimations().forEach((one) => one.cancel())");
  const { violations } = await page.evaluate(
    `${axe.source}; axe.run(document, { resultTypes: ["violations"] })`,
  ) as { violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] };
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`)
  );
}

const WAYS = [
  { name: "light", options: { colorScheme: "light" }, width: 1280 },
  { name: "dark", options: { colorScheme: "dark" }, width: 1280 },
  { name: "on a phone", options: { colorScheme: "light", reducedMotion: "reduce" }, width: 320 },
  { name: "in forced colours", options: { forcedColors: "active" }, width: 1280 },
] as const;

for (const { name, options, width } of WAYS) {
  browserTest(`has no fault that axe finds, ${name}`, async (browser) => {
    await using service = await Service.start({}, { look: LOOK });
    const long = "w".repeat(128);
    await service.server.app.publisher.groups.put("team", ["alice", long]);
    await using console = await ConsolePage.open(
      browser,
      service.server.url,
      { width, height: 740 },
      options,
    );
    const { page } = console;
    const look = async (what: string) => {
      assertEquals(await console.overflow(), 0, what);
      assertEquals(await faultsIn(page), [], what);
    };
    await look("as it comes");
    await page.getByRole("button", { name: "Run the demo" }).click();
    await page.getByText("alice reached 2 sockets").waitFor();
    await console.connect(long);
    await page.locator(".frame-log summary").first().click();
    await look("connect");
    await page.getByRole("link", { name: "Overview" }).click();
    await isLive(page);
    await page.getByRole("button", { name: "Check the set-up of this node" }).click();
    await page.locator("#findings li").nth(2).waitFor();
    await look("overview");
    await page.getByRole("link", { name: "Users" }).click();
    for (const user of [long, "alice"]) {
      await page.locator("#user-name").fill(user);
      await page.keyboard.press("Enter");
      await page.locator("#user-title", { hasText: user }).waitFor();
      await page.locator("#user-connections tr").first().waitFor();
      await look(`user ${user}`);
    }
    await page.getByRole("button", { name: "Kick" }).click();
    await look("a question");
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("link", { name: "Groups" }).click();
    await page.locator("#group-name").fill("team");
    await page.keyboard.press("Enter");
    await page.locator("#group-users tr").nth(1).waitFor();
    await look("group");
  });
}
