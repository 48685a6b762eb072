/** The client in a real Chromium where pages are not alone: in tabs that were duplicated, in workers, behind a service worker. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { browserScenarios, serveSite, Tab } from "./browser_tab.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { Service } from "../../testkit/service.ts";

const { scenario, run } = browserScenarios("Client in tabs and workers");

scenario(
  "Client in a tab that is duplicated and in the other one: each gets all that comes",
  async (browser) => {
    await using service = await Service.start();
    await using tab = await Tab.open(browser, service.server.url);
    const options = `{ user: "alice", store: storedIn(sessionStorage, "alice") }`;
    await tab.connect(options);
    await tab.state("open");
    await service.send("alice", 1);
    await tab.received(1);
    await tab.holds(`sessionStorage.getItem("alice")?.split(".")[1] === "1"`);
    // What a page opens begins with a copy of its storage, as a tab does that is duplicated.
    const opening = tab.context.waitForEvent("page");
    await tab.page.evaluate(`void open("/")`);
    await using twin = new Tab(tab.context, await opening);
    await twin.page.waitForLoadState();
    await service.send("alice", 2);
    await tab.received(2);
    await twin.connect(options);
    await twin.state("open");
    await service.send("alice", 3);
    for (const [one, expected] of [[tab, [1, 2, 3]], [twin, [2, 3]]] as const) {
      await one.received(expected.length);
      const { data, gaps } = await one.told();
      assertEquals([data.map(({ data }) => data), gaps], [expected, []]);
    }
    assertEquals(await service.sockets("alice"), 2);
    // Each has its own position from now on: what one has missed does not depend on the other.
    await twin.page.evaluate("client.pause()");
    await until(async () => await service.sockets("alice") === 1, "the twin to go");
    await service.send("alice", 4);
    await tab.holds(`sessionStorage.getItem("alice")?.split(".")[1] === "4"`);
    assertEquals(await twin.page.evaluate(`sessionStorage.getItem("alice").split(".")[1]`), "3");
    await twin.page.evaluate("client.resume()");
    await twin.received(3);
    assertEquals((await twin.told()).data.at(-1), { data: 4, replayed: true });
  },
);

/** Registers the service worker of a site, which then controls the page. */
const REGISTER = `(async () => {
  await navigator.serviceWorker.register("/sw.js", { type: "module" });
  await navigator.serviceWorker.ready;
  while (!navigator.serviceWorker.controller) {
    await new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
  }
})()`;

const WORKER = `
  import { connect } from "/client.js";
  let tell = (message) => postMessage(message);
  function begin(service) {
    const client = connect(service, { user: "alice", backoff: { baseMs: 20, maxMs: 100 } });
    client.on("state", (state) => tell({ state }));
    client.on("message", ({ data, replayed }) => tell({ data, replayed }));
  }`;

for (
  const [what, script, start] of [
    ["a worker", `onmessage = ({ data }) => begin(data);`, `new Worker("/worker.js", { type: "module" })`],
    [
      "a service worker",
      `onactivate = (event) => event.waitUntil(clients.claim());
       onmessage = ({ data, source }) => { tell = (message) => source.postMessage(message); begin(data); }`,
      `(await ${REGISTER}, navigator.serviceWorker.controller)`,
    ],
  ] as const
) {
  scenario(`Client in ${what} receives and resumes`, async (browser) => {
    const path = what === "a worker" ? "/worker.js" : "/sw.js";
    await using site = serveSite({ [path]: WORKER + script });
    await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: site.origin });
    await using tab = await Tab.open(browser, site.origin);
    await tab.page.evaluate(`(async () => {
      globalThis.heard = [];
      globalThis.worker = ${start};
      (worker instanceof Worker ? worker : navigator.serviceWorker).onmessage = ({ data }) => heard.push(data);
      worker.postMessage("${service.server.url}");
    })()`);
    await tab.holds(`heard.at(-1)?.state === "open"`);
    await service.send("alice", 1);
    await tab.holds(`heard.at(-1)?.data === 1`);
    await service.fetch("/v1/users/alice/connections?code=4503", { method: "DELETE" })
      .then((answer) => answer.body?.cancel());
    await service.send("alice", 2);
    await tab.holds(
      `heard.some(({ data }) => data === 2) && heard.filter(({ state }) => state === "open").length === 2`,
    );
    const heard = await tab.page.evaluate<{ data?: number }[]>("heard");
    assertEquals(heard.flatMap(({ data }) => data ?? []), [1, 2]);
  });
}

scenario(
  "Client in a page whose service worker fetches for it is told why it is refused",
  async (browser) => {
    const script = `onactivate = (event) => event.waitUntil(clients.claim());
    const asked = [];
    onfetch = (event) => { asked.push(event.request.url); event.respondWith(fetch(event.request)); };
    onmessage = ({ source }) => source.postMessage(asked);`;
    await using site = serveSite({ "/sw.js": script });
    await using closed = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: site.origin });
    await using foreign = await Service.start();
    await using tab = await Tab.open(browser, site.origin);
    await tab.page.evaluate(REGISTER);
    for (const [service, code] of [[closed, "unauthorized"], [foreign, "origin_not_allowed"]] as const) {
      await tab.page.evaluate(`(async () => {
      const { connect } = await import("/client.js");
      globalThis.errors = [];
      globalThis.client = connect("${service.server.url}", { token: () => "no-token" });
      client.on("error", ({ code }) => errors.push(code));
    })()`);
      await tab.holds("errors.length > 0");
      assertEquals(await tab.page.evaluate("errors"), [code]);
      await tab.page.evaluate("client.close()");
    }
    await tab.page.evaluate(`navigator.serviceWorker.onmessage = ({ data }) => globalThis.asked = data;
    navigator.serviceWorker.controller.postMessage("")`);
    await tab.holds("globalThis.asked");
    const asked = await tab.page.evaluate<string[]>("asked");
    for (const { server } of [closed, foreign]) {
      assert(asked.some((url) => url.startsWith(server.url)), "the worker has fetched it");
    }
  },
);

/** What a service worker answers in place of a network that is not there. */
const STANDINS = [
  `new Response("<p>You are offline", { headers: { "content-type": "text/html" } })`,
  `fetch("/")`, // as from its cache: the page of the site
];
for (const standin of STANDINS) {
  scenario(
    `Client whose service is away names a service worker that answers in its place, with ${standin}`,
    async (browser) => {
      const script = `onactivate = (event) => event.waitUntil(clients.claim());
        onfetch = (event) => event.respondWith(fetch(event.request).catch(() => ${standin}));`;
      await using site = serveSite({ "/sw.js": script });
      using away = OwnPort.take();
      await using tab = await Tab.open(browser, site.origin);
      await tab.page.evaluate(REGISTER);
      await tab.page.evaluate(`(async () => {
        const { connect } = await import("/client.js");
        globalThis.errors = [];
        globalThis.client = connect("http://127.0.0.1:${away}", { user: "alice", backoff: { baseMs: 10, maxMs: 10 } });
        client.on("error", ({ message }) => errors.push(message));
      })()`);
      await tab.holds("errors.length > 0");
      const [message] = await tab.page.evaluate<string[]>("errors");
      assertMatch(message!, /with 200, text\/html: this page's service worker, a proxy, the login page/);
      await tab.page.evaluate("client.close()");
    },
  );
}

scenario(
  "Client in a page whose policy names the service is in, and in one whose policy does not nobody else is blamed",
  async (browser) => {
    await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: "*" });
    const { url } = service.server;
    for (const [allowed, state] of [[`${url} ${url.replace("http", "ws")}`, "open"], ["'none'", "waiting"]]) {
      const policy = `script-src 'self' 'unsafe-inline'; connect-src ${allowed}`;
      await using site = serveSite({}, { "content-security-policy": policy });
      await using tab = await Tab.open(browser, site.origin);
      await tab.page.addScriptTag({
        type: "module",
        content: `import { connect } from "/client.js";
        globalThis.errors = [];
        globalThis.lost = 0;
        globalThis.client = connect("${url}", { user: "alice", backoff: { baseMs: 10, maxMs: 10 } });
        client.on("error", ({ message }) => errors.push(message));
        client.on("lost", () => lost++);`,
      });
      await tab.holds(state === "open" ? `globalThis.client?.state === "open"` : "globalThis.lost >= 4");
      assertEquals(await tab.page.evaluate("errors"), []);
      await tab.page.evaluate("client.close()");
    }
  },
);

run();
