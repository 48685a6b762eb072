/**
 * `deno task night`: faults, one after the other, each with nodes of its own that a real Prometheus reads by the rules of
 * `deploy/monitoring/` in shorter times. Each alert has to fire, the first look of its paragraph in docs/operations.md has
 * to show the cause, and no alert may fire that has nothing to do with it. Loopback only.
 *
 *     deno task night            # all
 *     deno task night evict hang # those with one of these words in their names
 */
import { ALERTS, readAlerts } from "../../testkit/alerts.ts";
import { BACKEND_FAULTS } from "./night/backends.ts";
import { NODE_FAULTS } from "./night/nodes.ts";
import { REDIS_FAULTS } from "./night/redis.ts";
import { Night } from "./night/night.ts";

const rules = await Deno.readTextFile(ALERTS);
const known = new Set((await readAlerts()).map(({ alert }) => alert));
const chosen = [...REDIS_FAULTS, ...NODE_FAULTS, ...BACKEND_FAULTS].filter(({ name }) =>
  Deno.args.length === 0 || Deno.args.some((word) => name.toLowerCase().includes(word.toLowerCase()))
);
const rows: string[] = [];
const faults: string[] = [];

for (const { name, fires, may = [], play } of chosen) {
  for (const alert of [...fires, ...may]) if (!known.has(alert)) faults.push(`${name}: there is no ${alert}`);
  const night = new Night(rules);
  try {
    const looks = await play(night);
    for (const [look, saw, shown] of looks) {
      const match = saw.exec(shown)?.[0];
      if (match === undefined) faults.push(`${name}: ${look} does not show ${saw}: ${shown.slice(0, 2_000)}`);
    }
    const stray = [...night.fired.keys()].filter((alert) => !fires.includes(alert) && !may.includes(alert));
    for (const alert of stray) {
      faults.push(`${name}: ${alert} fired, too: ${night.fired.get(alert)!.summary}`);
    }
    const fired = [...night.fired].map(([alert, { afterS }]) => `${alert} (${afterS} s)`).join(", ");
    const first = looks.map(([look, saw, shown]) => `${look}: ${line(saw, shown)}`).join("; ");
    rows.push(`| ${name} | ${fired} | ${first} |`);
    for (const [alert, { summary }] of night.fired) {
      if (/no value|%!|NaN/.test(summary)) faults.push(`${name}: ${alert} says "${summary}"`);
    }
  } catch (error) {
    faults.push(`${name}: ${error instanceof Error ? error.message : error}`);
  } finally {
    await night[Symbol.asyncDispose]();
  }
  console.error(
    `${name}: ${faults.some((fault) => fault.startsWith(`${name}:`)) ? "not as it should be" : "ok"}`,
  );
}

console.log(["| fault | alerts, and when | the first look |", "| --- | --- | --- |", ...rows].join("\n"));
for (const fault of faults) console.error(fault);
if (chosen.length === 0) console.error("No fault has that word in its name");
Deno.exitCode = faults.length > 0 || chosen.length === 0 ? 1 : 0;

/** The line that was looked for. */
function line(saw: RegExp, shown: string): string {
  const at = saw.exec(shown)?.index;
  if (at === undefined) return "**nothing**";
  const begin = shown.lastIndexOf("\n", at) + 1;
  return `\`${shown.slice(begin).split("\n")[0]!.trim().slice(0, 130)}\``;
}
