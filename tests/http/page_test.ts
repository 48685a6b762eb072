/**
 * The console page, in a real Chromium against a real service. Each scenario has a window of its own, and fails when
 * the browser reports an error that the test did not ask for: a script error, a missing file, a breach of the
 * content security policy.
 *
 * How its sockets stay connected is the client's work, and tested there.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Browser } from "../packages/playwright.ts";
import { CLOSE } from "../../src/protocol/close_codes.ts";
import { assets } from "../../src/web/assets.ts";
import { CLOSE_MEANINGS } from "../../src/web/socket.js";
import { ConsolePage, UNANSWERED } from "./console_page.ts";
import { CLOSED, KEY } from "../../testkit/closed.ts";
import { stretched, until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";

/** The scenarios share one browser, which takes longer to start than any of them to run. */
const scenarios: [name: string, run: (browser: Browser) => Promise<void>][] = [];

function browserTest(name: string, run: (browser: Browser) => Promise<void>): void {
  scenarios.push([name, run]);
}

Deno.test({
  name: "Console page",
  ignore: isBrowserMissing,
  async fn(t) {
    await using browser = await launchBrowser();
    for (const [name, run] of scenarios) await t.step(name, () => run(browser));
  },
});

browserTest(
  "Console page's demo shows a message that reaches both of alice's sockets and not bob's",
  async (browser) => {
    await using service = await Service.start();
    await using console = await ConsolePage.open(browser, service.server.url);
    const { page } = console;

    await page.getByRole("button", { name: "Run the demo" }).click();
    await page.getByText("alice reached 2 sockets").waitFor();
    const hello = JSON.stringify({ type: "hello", text: "Hello, alice!" }, null, 2);
    assertEquals(await console.payloads(console.card("alice", 1), 1), [hello]);
    assertEquals(await console.payloads(console.card("alice", 2), 1), [hello]);
    assertEquals(await service.sockets("alice"), 2);

    // What bob gets next is the first thing he gets.
    assertMatch(await console.send("bob", "1"), /^bob reached 1 socket\n/);
    assertEquals(await console.payloads(console.card("bob", 1), 1), ["1"]);
    assertEquals(await page.locator("#sends > li .result").allInnerTexts(), ["1 socket", "2 sockets"]);
  },
);

browserTest("Console page shows where the node stands, and what is special about it", async (browser) => {
  await using service = await Service.start({ USERWIRE_NODE: "here" });
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;

  assertEquals(await page.title(), "Userwire · here");
  assertMatch(
    (await page.locator("#service").innerText()).replaceAll(/\s+/g, " "),
    /^Ready Node here Broker memory Connections 0$/,
  );
  assert(await page.getByText("Anyone who can reach this address can read and send as anyone").isVisible());
  assert(await page.getByText("One node only").isVisible());
  await console.connect("alice");
  await page.locator("#service-connections", { hasText: /^1$/ }).waitFor();
});

browserTest(
  "Console page shows each message once, on both wires, newest first and with every digit",
  async (browser) => {
    await using service = await Service.start();
    await using console = await ConsolePage.open(browser, service.server.url);
    await console.connect("alice");
    await console.connect("alice bob", "raw");

    assertMatch(await console.send("alice", '{"n":12345678901234567890}'), /^alice reached 2 sockets\n/);
    assertMatch(await console.send("alice", "plain\ntext", "Text"), /^alice reached 2 sockets\n/);
    await service.send("alice", new Uint8Array([0, 255]));
    const expected = ["AP8=", "plain\ntext", '{\n  "n": 12345678901234567890\n}'];
    assertEquals(await console.payloads(console.card("alice", 1), 3), expected);
    assertEquals(await console.payloads(console.card("alice", 2), 3), expected);
    assertEquals(await console.card("bob", 1).locator(".messages > li").count(), 0);
    assertMatch(await console.card("alice", 1).innerText(), /userwire\.v1 · 3 messages/);
  },
);

browserTest("Console page says that a user is offline, and why a message was refused", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);

  assertMatch(await console.send("nobody", "1"), /^nobody is offline: kept for when they come back\n/);
  assertEquals(await console.page.locator("#sends > li .result").allInnerTexts(), ["offline, kept"]);
  const refusal = (await service.send("nobody", "x").then(() =>
    service.fetch("/v1/users/nobody/messages", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{not json",
    })
  ).then((response) => response.json())).detail;
  assertEquals(await console.send("nobody", "{not json"), `Not sent: ${refusal} (400)`);
  assertMatch(await console.page.locator("#send-payload-hint").innerText(), /^Not valid JSON yet/);
  console.forgive(/status of 400/);
});

browserTest("Console page sends to a group, and says what became of it", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  console.forgive(/status of 404/);
  await console.connect("alice");
  assertMatch(await console.send("@team", "1"), /^Not sent: There is no group "team": .* \(404\)$/);
  await service.server.app.publisher.groups.put("team", ["alice", "bob"]);
  const said = await console.send("@team", '{"hello":"all"}');
  assertMatch(said, /^@team: reached 1 socket of 1 user, kept for 0, 1 not seen for a day\nin \d+ ms · id /);
});

browserTest("Console page sends to everybody, and shows broadcasts as what they are", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  await console.connect("alice");
  await console.connect("bob");
  await page.getByLabel("Everybody who is connected").check();
  await page.getByLabel("Payload", { exact: true }).fill('{"maintenance":"22:00"}');
  assertMatch(String(await page.locator("#curl").textContent()), /\/v1\/broadcast'/);
  await page.keyboard.press("Control+Enter");
  await page.locator("#sends > li").waitFor();
  assertMatch(await page.locator("#send-outcome").innerText(), /^Everybody reached 2 sockets\n/);
  for (const user of ["alice", "bob"]) {
    const item = console.card(user, 1).locator(".messages > li").first();
    await item.waitFor();
    assertMatch(await item.innerText(), /broadcast[\s\S]*"maintenance": "22:00"/);
  }
  await page.getByRole("button", { name: "Use again: to everybody" }).click();
  await page.getByLabel("Everybody who is connected").uncheck();
  assertMatch(await console.send("bob", "1"), /^bob reached 1 socket\n/);
});

browserTest("Console page says that a message to nobody was not kept where nothing is", async (browser) => {
  await using service = await Service.start({ USERWIRE_HISTORY: "0" });
  await using console = await ConsolePage.open(browser, service.server.url);
  assertMatch(await console.send("nobody", "1"), /^nobody is offline: reached nobody\n/);
});

browserTest(
  "Console page's messages are items of a list in a log, for who hears the page",
  async (browser) => {
    await using service = await Service.start();
    await using console = await ConsolePage.open(browser, service.server.url);
    await console.connect("alice");
    await service.send("alice", 1);
    await service.send("alice", 2);
    const log = console.page.getByRole("log", { name: "Messages to alice, connection 1" });
    await log.getByRole("list").getByRole("listitem").nth(1).waitFor();
    // What is a log by its role is no list, whatever its tag says; items outside of one are nothing.
    assertEquals(await console.page.locator("ol[role], ul[role]").count(), 0);
  },
);

browserTest("Console page leaves the focus on Send after it has sent", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  await page.getByLabel("To", { exact: true }).fill("alice");
  const button = page.getByRole("button", { name: "Send", exact: true });
  await button.focus();
  for (const count of [1, 2]) {
    await page.keyboard.press("Enter");
    await page.locator("#sends > li").nth(count - 1).waitFor();
    assertEquals(await page.evaluate("document.activeElement.id"), "send-button");
  }
});

browserTest("Console page's cards take a key that was put right at their next attempt", async (browser) => {
  await using service = await Service.start(CLOSED);
  await using console = await ConsolePage.open(browser, `${service.server.url}#try`);
  const { page } = console;
  const field = page.getByLabel("API key");
  await field.waitFor();
  await page.getByLabel("Username").fill("alice");
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await console.card("alice", 1).getByText(/an API key or a token is needed/).first().waitFor();
  await field.fill("uw_wrong");
  await console.card("alice", 1).getByText(/\(401\)/).first().waitFor();
  await field.fill(KEY.key);
  await console.card("alice", 1).getByText("Open", { exact: true }).waitFor({ timeout: stretched(30_000) });
  console.forgive(/status of 401|Can't get a token/);
});

browserTest("Console page shows hostile names and payloads as text", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const username = `<img/src=x/onerror="alert(1)">`;
  const payload = `<img src=x onerror="alert(1)"><script>alert(2)</script>`;
  await console.connect(username);

  assertEquals(
    (await console.send(username, payload, "Text")).split("\n")[0],
    `${username} reached 1 socket`,
  );
  const json = `{"__proto__": ${JSON.stringify(payload)}, "<b>": ["</pre>"]}`;
  await console.send(username, json);
  const card = console.card(username, 1);
  assertEquals(await console.payloads(card, 2), [JSON.stringify(JSON.parse(json), null, 2), payload]);
  assertEquals(await card.locator(".name").innerText(), username);
  assertEquals(await console.page.locator("img").count(), 1, "The logo is the only image");
  assertEquals(await console.page.locator("script").count(), 1);
});

browserTest("Console page disconnects, reconnects and removes a connection", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  await console.connect("alice bob");
  const alice = console.card("alice", 1);

  await alice.getByRole("button", { name: "Disconnect" }).click();
  await alice.getByText("Disconnected", { exact: true }).waitFor();
  await until(async () => await service.sockets("alice") === 0, "alice to be gone");
  await alice.getByRole("button", { name: "Reconnect" }).click();
  await alice.getByText("Open", { exact: true }).waitFor();
  assertEquals(await service.sockets("alice"), 1);

  await alice.getByRole("button", { name: "Remove" }).press("Enter");
  await alice.waitFor({ state: "detached" });
  await until(async () => await service.sockets("alice") === 0, "alice to be gone");
  // Who works with the keyboard is on the next card now, and with no card left at the way to begin.
  await page.keyboard.press("Enter");
  await console.card("bob", 1).waitFor({ state: "detached" });
  assertEquals(await page.locator(":focus").innerText(), "Run the demo");
  await service.isEmpty();
});

browserTest("Console page says that the node restarts, and comes back by itself", async (browser) => {
  using port = OwnPort.take();
  await using service = await Service.start({ PORT: `${port}` });
  await using console = await ConsolePage.open(browser, service.server.url);
  await console.connect("alice bob");
  const card = console.card("alice", 1);

  console.forgive(UNANSWERED);
  // What the page says passes, maybe before anybody looks: so all of it is written down.
  await console.page.evaluate(`
    globalThis.said = [];
    new MutationObserver(() => said.push(document.body.innerText)).observe(document.body, {
      subtree: true, childList: true, characterData: true, attributes: true,
    });
  `);
  await service.server.shutdown();
  // Whether it finds the node on its way out or gone depends on when it asks.
  for (const words of [/^Closed 1012: restart/m, /^Back in \d+ s$/m, /^(Unreachable|Not ready)$/m]) {
    const said = async () => await console.page.evaluate("said") as string[];
    await until(
      async () => (await said()).some((text) => words.test(text)),
      `the page to say ${words}`,
      30_000,
    );
  }
  await using _again = await Service.start({ PORT: `${port}` });
  await card.getByText("Open", { exact: true }).waitFor({ timeout: stretched(30_000) });
  await console.card("bob", 1).getByText("Open", { exact: true }).waitFor({ timeout: stretched(30_000) });
  assertMatch(await console.send("alice", "1"), /^alice reached 1 socket\n/);
});

browserTest(
  "Console page refuses a username that the protocol forbids, and takes names from its address",
  async (browser) => {
    await using service = await Service.start();
    await using console = await ConsolePage.open(browser, `${service.server.url}?user=alice#user=bob`);
    const { page } = console;
    const field = page.getByLabel("Username");
    assertEquals(await field.inputValue(), "alice bob");
    assertEquals(await page.getByLabel("To", { exact: true }).inputValue(), "alice");

    for (
      const [name, why] of [["", /^Who/], ["a{b}", /braces/], ["userwire:x", /reserved/], [
        "é".repeat(65),
        /130/,
      ]]
    ) {
      await field.fill(name as string);
      await field.press("Enter");
      assertMatch(await page.getByRole("alert").innerText(), why as RegExp);
    }
    assertEquals(await page.getByRole("article").count(), 0);
  },
);

browserTest("Console page's curl command is one that a shell reads as meant", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  const payload = `@it's "quoted" $(echo no)\n\\ \`echo no\``;
  await page.getByLabel("To", { exact: true }).fill("o'neil/é");
  await page.getByRole("radio", { name: "Text", exact: true }).check();
  await page.getByLabel("Payload", { exact: true }).fill(payload);
  await page.getByText("The same from a terminal").click();

  const command = await page.locator("#curl").innerText();
  const { stdout } = await new Deno.Command("sh", {
    args: ["-c", `curl() { printf '%s\\0' "$@"; }; ${command}`],
  }).output();
  assertEquals(new TextDecoder().decode(stdout).split("\0"), [
    `${service.server.url}v1/users/o'neil%2F%C3%A9/messages`,
    "-H",
    "content-type: text/plain; charset=utf-8",
    "--data-raw",
    payload,
    "",
  ]);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
});

for (const width of [320, 360]) {
  browserTest(`Console page fits a phone of ${width} pixels`, (browser) => assertFits(browser, width));
}

async function assertFits(browser: Browser, width: number): Promise<void> {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url, { width, height: 740 });
  assertEquals(await console.overflow(), 0, "Before anything");

  await console.page.getByText("The same from a terminal").click();
  const longest = "w".repeat(128);
  await console.connect(longest);
  await console.send(longest, JSON.stringify({ long: "x".repeat(5_000), lines: Array(50).fill(0) }));
  await console.send("nobody", "y".repeat(5_000), "Text");
  await console.payloads(console.card(longest, 1), 1);
  assertEquals(await console.overflow(), 0, "With long names and payloads");
  await console.page.getByRole("button", { name: /^Show all/ }).click();
  assertEquals(await console.overflow(), 0, "Unfolded");
}

browserTest("Console page does not go on counting the sockets of a service that is away", async (browser) => {
  await using service = await Service.start();
  await using console = await ConsolePage.open(browser, service.server.url);
  const { page } = console;
  await console.connect("alice");
  await page.locator("#service-connections", { hasText: /^1$/ }).waitFor();
  console.forgive(UNANSWERED);
  await service.server.shutdown();
  await until(async () => {
    await page.evaluate("dispatchEvent(new Event('focus'))");
    return await page.locator("#service-state").innerText() === "Unreachable";
  }, "the page to notice");
  assertEquals(await page.locator("#service-connections").innerText(), "–");
});

Deno.test("Page assets are all that the page refers to, with nothing inline", async () => {
  const folder = new URL("../../src/web/", import.meta.url);
  for await (const { name } of Deno.readDir(folder)) {
    // Chapters of the style sheet are one file for the browser.
    if (name === "assets.ts" || name === "css") continue;
    const asset = assets.get(name === "index.html" ? "/" : `/${name}`);
    assertEquals(asset?.body, await Deno.readTextFile(new URL(name, folder)), name);
  }
  const css = assets.get("/page.css")!.body;
  for await (const { name } of Deno.readDir(new URL("css/", folder))) {
    assert(css.includes(await Deno.readTextFile(new URL(`css/${name}`, folder))), name);
  }
  const html = assets.get("/")!.body;
  for (const [, path] of html.matchAll(/(?:href|src)="([^"]+)"/g)) {
    const isThere = path!.startsWith("#") ? html.includes(`id="${path!.slice(1)}-view"`) : assets.has(path!);
    assert(path === "/openapi.json" || isThere, path);
  }
  assertEquals(html.match(/<script(?! type="module" src=)|<style|\sstyle=|\son\w+=/gi), null);
  assertEquals(new Set([...assets.values()].map(({ etag }) => etag)).size, assets.size);
  for (const [path, { body }] of assets) {
    if (!path.endsWith(".js")) continue;
    for (const [, module] of body.matchAll(/from "\.([^"]+)"/g)) {
      assert(assets.has(module!), `${path}: ${module}`);
    }
    assertEquals(body.match(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/), null, path);
  }
});

Deno.test("Page has words for every close code of the protocol", () => {
  for (const { code } of Object.values(CLOSE)) assert(CLOSE_MEANINGS.has(code), String(code));
});
