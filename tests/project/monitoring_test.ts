/**
 * The files of `deploy/monitoring/`, the page of the one who is called at night, and real nodes agree: alerts and panels
 * ask for what there is, each alert has its paragraph, and each paragraph its alert. What Prometheus itself thinks of the
 * rules is asked by `deno task test:monitoring`.
 */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { DASHBOARD, dashboard } from "../../deploy/dashboard.ts";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { Certificates } from "../../testkit/certificates.ts";
import { until } from "../../testkit/deadline.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";
import { missingIn, selectorsIn } from "../../testkit/promql.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { WebhookReceiver } from "../../testkit/webhook_receiver.ts";
import { openClient } from "../../testkit/ws_client.ts";
import { type Alert, readAlerts } from "../../testkit/alerts.ts";

const ROOT = new URL("../../", import.meta.url);

const alerts = await readAlerts();
const page = await Deno.readTextFile(new URL("docs/operations.md", ROOT));
/** The paragraphs, by the alerts that they are about. */
const paragraphs = new Map(
  page.split(/^(?=##+ )/m).flatMap((section) => {
    const [, name, text] = /^### (Userwire\w+)\n\n([^]*?)\n*$/.exec(section) ?? [];
    return name === undefined ? [] : [[name, text!] as const];
  }),
);

/** What a paragraph says, in this order. */
const PARTS = ["Users", "Look first", "Causes", "Over"];

Deno.test("Each alert has one paragraph of what to do, and each paragraph its alert", () => {
  const named = alerts.map(({ alert }) => alert);
  assertEquals(named.length, new Set(named).size);
  assertEquals([...page.matchAll(/^### (Userwire\w+)$/gm)].map(([, name]) => name).sort(), named.sort());
  assertEquals([...paragraphs.keys()].sort(), named);
  for (const [name, text] of paragraphs) {
    assert(!text.includes("\n\n"), `${name} is one paragraph`);
    const bold = [...text.matchAll(/\*\*([^*]+)\*\*/g)].map(([, word]) => word!.replace(/\s+/, " "));
    assertEquals(bold.filter((word) => PARTS.includes(word)), PARTS, name);
    assert(bold.includes("Do") || bold.includes("do"), `${name} says what to do`);
    const first = text.slice(text.search(/\*\*Look\s+first\*\*/), text.indexOf("**Causes**"));
    assertMatch(first, /`[^`]+`|_[A-Z][^_]+_/, `${name} names a command or a panel`);
  }
});

Deno.test("An alert says how grave it is, and names what can be told apart", () => {
  for (const { alert, expr, labels, annotations, for: time } of alerts) {
    assert(labels.severity === "page" || labels.severity === "ticket", alert);
    assertGreater(annotations.summary.length, 10, alert);
    // What is summed up has no node to name, what is not would be a line per node without a name.
    const isOfNode = /\$labels\.instance/.test(annotations.summary);
    const isSummed = /^\s*(?:sum|max|absent|count)\(/.test(expr);
    assertEquals(isOfNode, !isSummed, `${alert}: ${annotations.summary}`);
    // A counter says it once: what looks back over time needs no more of it, a gauge may be so for a moment.
    const isGauge = !/\[\w+\]/.test(expr);
    assert(!isGauge || time !== undefined || alert === "UserwireCertificateEnded", `${alert} waits`);
    // What was counted once would be an alert for ever.
    for (const [counter, window] of expr.matchAll(/\b\w+_total\b(?:\{[^}]*\})?(\[)?/g)) {
      assert(window !== undefined, `${alert}: ${counter} is taken as it stands`);
    }
    assert(
      !/\b(?:rate|increase)\([^)]*\[[1-4]m\]/.test(expr),
      `${alert} is blind where nodes are read once a minute`,
    );
  }
});

/** Series of nodes that were asked for everything there is, by everybody who asks. */
async function everything(): Promise<Map<string, number>> {
  await using redis = await RedisServer.start();
  await using certificates = await Certificates.make();
  await using backend = new WebhookReceiver();
  const env = { ...backend.env, USERWIRE_WEBHOOK_EVENTS: "users,requests", USERWIRE_HISTORY: "2" };
  await using service = await Service.start({ REDIS_URL: redis.url, ...env });
  await using secure = await Service.start({
    USERWIRE_TLS_CERT: certificates.cert("server"),
    USERWIRE_TLS_KEY: certificates.key("server"),
  });
  const call = async (path: string, body: unknown, method = "POST") => {
    const init = { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    const response = await service.fetch(path, init);
    const text = await response.text();
    assert(response.ok, `${path}: ${response.status} ${text}`);
  };
  await using alice = await openClient(service.socketUrl("alice"), ["userwire.v1"]);
  const { pos } = await alice.nextJson();
  await using _raw = await openClient(service.socketUrl("alice"));
  assertEquals((await service.send("alice", "hello")).body.sockets, 2);
  assertEquals((await service.send("bob", "later")).body.sockets, 0);
  assertEquals((await service.send("a b", "nobody")).status, 400);
  for (const user of ["alice", "bob"]) await call(`/v1/groups/team/users/${user}`, undefined, "PUT");
  await call("/v1/groups/team/messages", { n: 1 });
  await call("/v1/broadcast", { n: 2 });
  for (let n = 0; n < 4; n++) await service.send("alice", n);
  await using carol = await openClient(service.socketUrl("carol"), ["userwire.v1"]);
  await carol.nextJson();
  await carol.close(1000);
  // Away for too long, and from another history.
  await using _late = await openClient(`${service.socketUrl("alice")}&resume=${pos}`, ["userwire.v1"]);
  alice.send(JSON.stringify({ t: "req", id: "1", op: "ask" }));
  await backend.until(() => backend.received.length > 0, "the backend to be told");
  using client = Deno.createHttpClient({ caCerts: [certificates.ca] });
  const read = async (of: Service, init: RequestInit & { client?: Deno.HttpClient } = {}) =>
    parseMetrics(await (await fetch(new URL("/metrics", of.server.url), init)).text());
  let served = new Map<string, number>();
  const wanted = [
    /^gaps_total\{why="trimmed"/,
    /^messages_delivered/,
    /^webhooks_total.*delivered/,
    /^requests_total/,
  ];
  wanted.push(/^connections_closed_total\{code="1000"/);
  const isDone = async () => {
    served = await read(service);
    return wanted.every((name) =>
      [...served].some(([series, value]) => value > 0 && name.test(series.replace("userwire_", "")))
    );
  };
  await until(isDone, "all of it to be counted");
  return new Map([...await read(secure, { client }), ...served]);
}

/** What is 0 on these nodes, since nothing went wrong. */
const QUIET = /refused|missed|dropped|lost|reconnects|interruptions|warnings|oldest|lagging|code="4508"/;

redisTest("Alerts and panels ask for metrics, labels and values that real nodes have", async () => {
  const served = await everything();
  const missing: string[] = [];
  const look = (what: string, expr: string) => {
    for (const one of missingIn(expr, served.keys())) missing.push(`${what}: ${one}`);
  };
  for (const { alert, expr } of alerts) look(alert, expr);
  const panels = JSON.parse(await Deno.readTextFile(DASHBOARD)).panels as Panel[];
  for (const { title, targets = [] } of panels) for (const { expr } of targets) look(title, expr);
  assertEquals(missing, []);
  // The check itself: each of these is a mistake.
  for (const wrong of ["userwire_no", 'userwire_ready{mode="raw"}', 'userwire_gaps_total{why="age"}']) {
    assertEquals(missingIn(wrong, served.keys()).length, 1, wrong);
  }
  assertEquals(missingIn("sum by (cod) (userwire_connections_closed_total)", served.keys()), ["by (cod)"]);

  const dead = panels.filter(({ title, targets = [] }) => {
    const asked = targets.flatMap(({ expr }) => selectorsIn(expr));
    const names = asked.map(({ metric }) => metric);
    if (targets.length === 0 || QUIET.test(`${title} ${targets.map(({ expr }) => expr)}`)) return false;
    return ![...served].some(([series, value]) => value !== 0 && names.includes(series.replace(/\{.*/, "")));
  });
  assertEquals(
    dead.map(({ title }) => title),
    [],
    "panels that show nothing of nodes with all kinds of traffic",
  );
  // And each number is somewhere to be seen.
  const shown = new Set(
    panels.flatMap(({ targets = [] }) => targets.flatMap(({ expr }) => selectorsIn(expr))).map(({ metric }) =>
      metric
    ),
  );
  const families = new Set(
    [...served.keys()].map((series) => series.replace(/\{.*/, "").replace(/_(?:sum|count)$/, "_bucket")),
  );
  assertEquals([...families].filter((name) => !shown.has(name)), []);
});

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly fieldConfig?: { readonly defaults: { readonly unit: string } };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly {
    readonly expr: string;
    readonly legendFormat: string;
    readonly datasource: { uid: string };
  }[];
}

Deno.test("The dashboard is what its table makes, and Grafana can import it anywhere", async () => {
  const text = await Deno.readTextFile(DASHBOARD);
  assertEquals(text, dashboard(), "run deno task docs");
  const { panels, templating, uid } = JSON.parse(text);
  assertEquals(uid, "userwire");
  const variables = Object.fromEntries(
    templating.list.map((one: { name: string; type: string }) => [one.name, one.type]),
  );
  assertEquals(variables, { datasource: "datasource", node: "query" });
  const rows = (panels as Panel[]).filter(({ type }) => type === "row").map(({ title }) => title);
  assertEquals(rows, ["Users", "Sends", "Delivery", "Redis", "Webhooks", "Process"]);
  const ids = (panels as Panel[]).map(({ id }) => id);
  assertEquals(new Set(ids).size, ids.length);
  const taken = new Set<string>();
  for (const { type, title, description, gridPos: { x, y, w, h }, ...panel } of panels as Panel[]) {
    for (let at = 0; at < w * h; at++) {
      const cell = `${x + at % w},${y + Math.floor(at / w)}`;
      assert(!taken.has(cell), `${title} lies on another panel`);
      taken.add(cell);
    }
    if (type === "row") continue;
    assertGreater(description!.length, 5, title);
    assertGreater(panel.fieldConfig!.defaults.unit.length, 0, title);
    for (const { expr, datasource, legendFormat } of panel.targets!) {
      assertEquals(datasource.uid, "${datasource}");
      assertGreater(legendFormat.length, 0, title);
      for (const { metric, matchers } of selectorsIn(expr)) {
        assert(
          matchers.some(({ label, value }) => label === "instance" && value === "$node"),
          `${title}: ${metric}`,
        );
      }
      // A window that is shorter than two readings apart shows nothing; only Grafana knows how far apart they are.
      assert(!/rate\([^[]*\[\d/.test(expr), `${title} says $__rate_interval`);
    }
  }
});

Deno.test("Commands of the paragraphs stand on one line, and are commands of ours with options that there are", async () => {
  const options = new Map<string, string>();
  for (const [name, text] of paragraphs) {
    for (const [, command] of text.matchAll(/`([^`]+)`/g)) {
      assert(!command!.includes("\n"), `${name}: ${command}`);
    }
    for (
      const [, command, rest] of text.matchAll(
        /`(?:userwire |as_node )?((?:doctor|nodes|drain|connections|webhook test)\b)([^`]*)`/g,
      )
    ) {
      if (!options.has(command!)) {
        const terminal = new Terminal();
        assertEquals(await terminal.run([...command!.split(" "), "--help"]), 0, command);
        options.set(command!, terminal.stdout);
      }
      for (const [option] of rest!.matchAll(/--[a-z-]+/g)) {
        assert(
          options.get(command!)!.includes(`${option} `),
          `${name}: userwire ${command} has no ${option}`,
        );
      }
    }
  }
  assertEquals([...options.keys()].sort(), ["connections", "doctor", "drain", "nodes", "webhook test"]);
});

Deno.test("What the dashboard and the page say of alerts and panels is so", () => {
  const { panels } = JSON.parse(dashboard()) as { panels: Panel[] };
  const titles = new Set(panels.map(({ title }) => title));
  const known = new Set(alerts.map(({ alert }: Alert) => alert));
  for (const { description = "" } of panels) {
    for (const [name] of description.matchAll(/Userwire\w+/g)) assert(known.has(name), name);
  }
  for (const [name, text] of paragraphs) {
    for (const [, title] of text.matchAll(/(?<![\w`])_([A-Z][^_`]+)_(?!\w)/g)) {
      assert(titles.has(title!.replace(/\s+/g, " ")), `${name}: there is no panel "${title}"`);
    }
  }
});
