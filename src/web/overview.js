/** The overview: a node's last 15 minutes as they go on, all nodes, and what the doctor finds. */
import { call } from "./api.js";
import { Chart } from "./charts.js";
import { byId, clockOf, el, plural, setText } from "./dom.js";
import { joined, picturesOf } from "./pictures.js";
import { StatsStream } from "./stats.js";
import { addView } from "./views.js";

/** What is kept, in milliseconds: all that the service has. */
const SPAN_MS = 15 * 60_000;
/** What the charts show at least; with more samples all of them. */
const MIN_SPAN_MS = 2 * 60_000;

/** @type {import("./stats.js").Sample[]} */
let samples = [];
let about = { node: "", version: "", webhooks: false };
let everyMs = 5_000;
let isRedis = false;
let isLive = false;
/** When nodes were listed the last time, in Unix milliseconds. */
let nodesAt = 0;
/** Whether the newest is looked at, whatever comes. */
let isNow = true;
/** @type {Map<string, Chart>} */
const charts = new Map();

const moment = /** @type {HTMLInputElement} */ (byId("moment"));
const live = byId("live");

/**
 * Brings the view to life.
 * @param {{ show: (readiness: import("./status.js").Readiness) => void, ask: () => void }} status The bar, which is told what comes here.
 */
export function openOverview(status) {
  const stream = new StatsStream({
    stats(stats) {
      isLive = true;
      take(stats);
      status.show(stats.readiness);
    },
    lost(why) {
      isLive = false;
      sayLost(why);
      status.ask();
    },
  });
  let isShown = false;
  // Who does not look needs no stream: what they miss is in the first event of the next one.
  const follow = () => isShown && document.visibilityState === "visible" ? stream.open() : stream.close();
  addView("overview", {
    shown() {
      isShown = true;
      follow();
    },
    left() {
      isShown = false;
      follow();
    },
  });
  document.addEventListener("visibilitychange", follow);
  addEventListener("online", follow);
  byId("access-key").addEventListener("change", follow);
  moment.addEventListener("input", () => {
    isNow = Number(moment.value) >= samples.length - 1;
    look();
  });
  byId("look").addEventListener("click", askDoctor);
}

/** What the width of a chart stands for, in whole minutes. */
function spanMs() {
  const coveredMs = (samples.at(-1)?.at ?? 0) - (samples[0]?.at ?? 0);
  return Math.min(SPAN_MS, Math.max(MIN_SPAN_MS, Math.ceil(coveredMs / 60_000) * 60_000));
}

function take(/** @type {import("./stats.js").Stats} */ stats) {
  if (stats.about && stats.about.node !== about.node) samples = [];
  about = stats.about ?? about;
  everyMs = stats.every_ms ?? everyMs;
  isRedis = stats.readiness.broker === "redis";
  samples = joined(samples, stats.samples, SPAN_MS);
  draw();
  drawNodes(stats);
  drawWarnings(stats.readiness.warnings ?? []);
  live.dataset.state = "live";
  setText(byId("live-words"), "Live");
  setText(byId("stats-node"), `${about.node} · version ${about.version}`);
  byId("seen").hidden = false;
  byId("overview-view").dataset.live = "true";
}

/** Nothing that is shown is true any more: it says so, and since when. */
function sayLost(/** @type {string} */ why) {
  const last = samples.at(-1)?.at;
  byId("overview-view").dataset.live = "false";
  live.dataset.state = "lost";
  const since = last === undefined ? "" : ` The last numbers are of ${clockOf(last)}.`;
  setText(byId("live-words"), `Not live: ${why}.${since}`);
  if (nodesAt > 0) setText(byId("nodes-as-of"), `as of ${clockOf(nodesAt)}`);
  for (const chart of charts.values()) chart.look(undefined);
  moment.disabled = true;
}

function draw() {
  const pictures = picturesOf(samples, { everyMs, webhooks: about.webhooks, isRedis });
  const times = samples.map(({ at }) => at);
  for (const [id, picture] of pictures) {
    let chart = charts.get(id);
    if (!chart) {
      chart = new Chart(id, pointAt);
      charts.set(id, chart);
      byId("charts").append(chart.element);
    }
    chart.draw(picture, times, spanMs());
  }
  moment.disabled = false;
  moment.max = String(samples.length - 1);
  if (isNow) moment.value = moment.max;
  look();
}

/** The pointer is at that share of a chart; undefined when it has left. */
function pointAt(/** @type {number | undefined} */ share) {
  if (!isLive) return;
  isNow = share === undefined;
  const end = samples.at(-1)?.at ?? 0;
  const wanted = end - spanMs() * (1 - (share ?? 1));
  let nearest = samples.length - 1;
  for (let i = nearest; i >= 0; i--) {
    const distance = (/** @type {number} */ at) => Math.abs((samples[at]?.at ?? 0) - wanted);
    if (distance(i) < distance(nearest)) nearest = i;
  }
  moment.value = String(nearest);
  look();
}

function look() {
  const at = Number(moment.value);
  const words = isNow ? "now" : clockOf(samples[at]?.at ?? 0);
  moment.setAttribute("aria-valuetext", words);
  setText(byId("moment-words"), words);
  for (const chart of charts.values()) chart.look(at);
}

function drawNodes(/** @type {import("./stats.js").Stats} */ { nodes, nodes_problem }) {
  byId("nodes").toggleAttribute("data-stale", nodes === undefined);
  if (!nodes) return setText(byId("nodes-as-of"), `as of ${clockOf(nodesAt)}, for now ${nodes_problem}`);
  nodesAt = Date.now();
  setText(byId("nodes-as-of"), String(nodes.length));
  const rows = nodes.map(({ node, version, since, connections, subscriptions, draining }) =>
    el(
      "tr",
      { "data-state": draining ? "draining" : "serving" },
      el(
        "th",
        { scope: "row" },
        el("bdi", {}, node),
        ...(node === about.node ? [" ", el("small", {}, "shown above")] : []),
      ),
      el(
        "td",
        {},
        el("span", { class: "state" }, el("span", { class: "dot" }), draining ? "Draining" : "Serving"),
      ),
      el("td", { class: "number" }, String(connections)),
      el("td", {}, subscriptions ?? "in memory"),
      el("td", {}, version),
      el("td", {}, el("time", { datetime: since }, agoOf(Date.parse(since)))),
    )
  );
  byId("nodes").replaceChildren(...rows);
}

function drawWarnings(/** @type {string[]} */ warnings) {
  const list = byId("warnings");
  if (list.childElementCount === 0 && warnings.length === 0) return;
  list.replaceChildren(
    ...warnings.map((text) => findingOf({ check: "readiness", state: "warning", says: text })),
  );
}

async function askDoctor() {
  const button = byId("look");
  const outcome = byId("look-outcome");
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  setText(outcome, "Looking: this may take some seconds");
  try {
    const { findings } = await call("GET", "/v1/doctor");
    const order = ["fault", "warning", "ok"];
    findings.sort((/** @type {any} */ a, /** @type {any} */ b) =>
      order.indexOf(a.state) - order.indexOf(b.state)
    );
    byId("findings").replaceChildren(...findings.map(findingOf));
    const count = (/** @type {string} */ state) =>
      findings.filter((/** @type {{ state: string }} */ finding) => finding.state === state).length;
    const found = `${plural(count("fault"), "fault")}, ${plural(count("warning"), "warning")}, ${
      count("ok")
    } well`;
    setText(outcome, `${found}, at ${clockOf(Date.now())}`);
  } catch (error) {
    setText(outcome, error instanceof Error ? error.message : String(error));
  }
  button.removeAttribute("aria-disabled");
}

const MARKS = /** @type {Record<string, [string, string]>} */ ({
  ok: ["✓", "well"],
  warning: ["!", "warning"],
  fault: ["✗", "fault"],
});

function findingOf(/** @type {{ check: string, state: string, says: string, remedy?: string }} */ finding) {
  const [mark, word] = MARKS[finding.state] ?? ["?", finding.state];
  return el(
    "li",
    { "data-state": finding.state },
    el("span", { class: "mark", "aria-hidden": "true" }, mark),
    el(
      "p",
      {},
      el("strong", {}, finding.check),
      el("span", { class: "sr-only" }, `, ${word}`),
      `: ${finding.says}`,
      ...(finding.remedy === undefined ? [] : [el("span", { class: "remedy" }, finding.remedy)]),
    ),
  );
}

/** "3 days", "12 minutes". */
function agoOf(/** @type {number} */ at) {
  const minutes = Math.max(0, Math.floor((Date.now() - at) / 60_000));
  if (minutes < 1) return "under a minute";
  if (minutes < 60) return plural(minutes, "minute");
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? plural(hours, "hour") : plural(Math.floor(hours / 24), "day");
}
