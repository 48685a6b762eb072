/**
 * The dashboard for Grafana, made of the table of its panels: `deploy/monitoring/dashboard.json`, which `deno task docs`
 * writes. Whoever imports it picks the Prometheus and the nodes above it.
 */
import { type Panel, ROWS } from "./dashboard_panels.ts";

/** Where it lies. */
export const DASHBOARD = new URL("monitoring/dashboard.json", import.meta.url);

/** Three panels stand beside each other in Grafana's 24 columns. */
const WIDTH = 8;
const HEIGHT = 7;
const COLUMNS = 24;
const SOURCE = { type: "prometheus", uid: "${datasource}" };

/** The dashboard as Grafana imports it. */
export function dashboard(): string {
  const panels: unknown[] = [];
  let y = 0;
  for (const [title, row] of Object.entries(ROWS)) {
    panels.push({
      id: panels.length + 1,
      type: "row",
      title,
      collapsed: false,
      gridPos: { x: 0, y, w: COLUMNS, h: 1 },
      panels: [],
    });
    y += 1;
    for (const [i, panel] of row.entries()) {
      const x = i * WIDTH % COLUMNS;
      if (i > 0 && x === 0) y += HEIGHT;
      panels.push(shown(panel, { id: panels.length + 1, x, y }));
    }
    y += HEIGHT;
  }
  const described = {
    uid: "userwire",
    title: "Userwire",
    tags: ["userwire"],
    schemaVersion: 39,
    version: 2,
    editable: true,
    graphTooltip: 1,
    refresh: "30s",
    time: { from: "now-3h", to: "now" },
    templating: { list: [SOURCES, PICKED] },
    annotations: { list: [] },
    panels,
  };
  return `${JSON.stringify(described, undefined, 2)}\n`;
}

/** Which Prometheus. */
const SOURCES = {
  name: "datasource",
  label: "Prometheus",
  type: "datasource",
  query: "prometheus",
  refresh: 1,
  current: {},
};
/** Which nodes. */
const PICKED = {
  name: "node",
  label: "Node",
  type: "query",
  datasource: SOURCE,
  query: { query: "label_values(userwire_build_info, instance)", refId: "node" },
  refresh: 2,
  sort: 1,
  multi: true,
  includeAll: true,
  allValue: ".*",
  current: { text: "All", value: "$__all" },
};

function shown(panel: Panel, { id, x, y }: { id: number; x: number; y: number }) {
  const { title, description, unit, lines, max } = panel;
  return {
    id,
    type: "timeseries",
    title,
    description,
    datasource: SOURCE,
    gridPos: { x, y, w: WIDTH, h: HEIGHT },
    fieldConfig: {
      defaults: { unit, custom: { axisSoftMin: 0 }, ...(max !== undefined && { max }) },
      overrides: [],
    },
    // Many lines are 0 when all is well: those that are not stand first.
    options: {
      legend: { displayMode: "table", placement: "bottom", calcs: ["max"], sortBy: "Max", sortDesc: true },
      tooltip: { mode: "multi", sort: "desc" },
    },
    targets: lines.map(([expr, legendFormat], i) => ({
      refId: String.fromCharCode(65 + i),
      datasource: SOURCE,
      expr,
      legendFormat,
    })),
  };
}
