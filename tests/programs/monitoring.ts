/**
 * `deno task test:monitoring`: what Prometheus itself thinks of the rules in `deploy/monitoring/`, of the metrics of a
 * node, and of the questions of the dashboard; and when each alert fires, and does not. Prometheus is installed by nobody
 * for a run of all tests; the task unpacks Debian's package where there is none.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { type Alert, ALERTS, readAlerts, readGroups } from "../../testkit/alerts.ts";
import { dashboard } from "../../deploy/dashboard.ts";
import { findPrometheus, output, Prometheus } from "../../testkit/prometheus.ts";
import { Service } from "../../testkit/service.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";
import { until } from "../../testkit/deadline.ts";
import { type Case, CASES } from "./alert_cases.ts";

const PROMTOOL = await findPrometheus("promtool");

Deno.test("promtool finds no fault with the rules, nor with the metrics of a node", async () => {
  const { success, text } = await output(PROMTOOL, ["check", "rules", fileURLToPath(ALERTS)]);
  assert(success, text);
  assertMatch(text, /SUCCESS: \d+ rules found/);

  await using service = await Service.start();
  using folder = new TempFolder("metrics");
  const served = `${folder}/metrics`;
  await Deno.writeTextFile(served, await (await service.fetch("/metrics")).text());
  // It reads its standard input, and says nothing of what is well.
  const checked = await output("sh", ["-c", `exec "$0" check metrics < "$1"`, PROMTOOL, served]);
  assertEquals(checked, { success: true, text: "" });
});

/** The rules, and what is to fire, for promtool. JSON is YAML. */
async function write(folder: TempFolder, expected: (one: Case) => Case["fires"]): Promise<string> {
  // What annotations say is seen with a real Prometheus; here they would have to be written twice.
  const groups = (await readGroups()).map(({ name, rules }) => ({
    name,
    rules: rules.map(({ annotations: _, ...rule }) => rule),
  }));
  await Deno.writeTextFile(`${folder}/rules.yml`, JSON.stringify({ groups }));
  const severities = new Map(
    (await readAlerts()).map(({ alert, labels }: Alert) => [alert, labels.severity]),
  );
  const tests = Object.entries(CASES).flatMap(([alertname, cases]) =>
    cases.map((one) => ({
      name: `${alertname}: ${one.when}`,
      interval: "1m",
      input_series: Object.entries(one.series).map(([series, values]) => ({ series, values })),
      alert_rule_test: [{
        eval_time: `${one.atMinute}m`,
        alertname,
        exp_alerts: expected(one).map((labels) => ({
          exp_labels: { ...labels, severity: severities.get(alertname) },
        })),
      }],
    }))
  );
  const path = `${folder}/tests.yml`;
  await Deno.writeTextFile(
    path,
    JSON.stringify({ rule_files: ["rules.yml"], evaluation_interval: "1m", tests }),
  );
  return path;
}

Deno.test("Each alert fires when it should, and not when it should not", async () => {
  const alerts = (await readAlerts()).map(({ alert }) => alert);
  assertEquals(Object.keys(CASES).sort(), alerts.sort());
  for (const [alert, cases] of Object.entries(CASES)) {
    assertEquals(new Set(cases.map(({ fires }) => fires.length > 0)).size, 2, `${alert}: both are shown`);
  }
  using folder = new TempFolder("alerts");
  const { success, text } = await output(PROMTOOL, [
    "test",
    "rules",
    await write(folder, ({ fires }) => fires),
  ]);
  assert(success, text);
  // The other way around every one of them fails.
  const wrong = await write(folder, ({ fires }) => fires.length > 0 ? [] : [{}]);
  const swapped = await output(PROMTOOL, ["test", "rules", wrong]);
  assertEquals(swapped.success, false);
  const failed = [...swapped.text.matchAll(/alertname: ?(\w+)/g)].map(([, name]) => name!);
  const count = Object.values(CASES).flat().length;
  assertEquals(failed.length, count, swapped.text);
});

Deno.test("Prometheus understands every question of the dashboard, and of a node each but that for certificates has an answer", async () => {
  await using service = await Service.start();
  await using prometheus = await Prometheus.start({
    rules: await Deno.readTextFile(ALERTS),
    targets: [service.server.url],
    everyS: 1,
  });
  const { panels } = JSON.parse(dashboard()) as { panels: { title: string; targets?: { expr: string }[] }[] };
  const empty = async () => {
    const titles: string[] = [];
    for (const { title, targets = [] } of panels) {
      for (const { expr } of targets) {
        const asked = expr.replaceAll("$node", ".*").replaceAll("$__rate_interval", "1m");
        if (await prometheus.count(asked) === 0) titles.push(title);
      }
    }
    return titles;
  };
  let titles: string[] = [];
  await until(
    async () => (titles = await empty()).length <= 1,
    "panels to show something",
    60_000,
    () => titles,
  );
  assertEquals(titles, ["Certificates end in"]);
});
