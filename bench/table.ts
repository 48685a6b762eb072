/** The figures of all runs as one Markdown table: medians, each with its ratio to the reference system. */
import type { Figures } from "./measure.ts";

interface Column {
  readonly title: string;
  readonly figure: keyof Figures;
  readonly digits: number;
}

const COLUMNS: readonly Column[] = [
  { title: "connects/s ↑", figure: "connectsPerS", digits: 0 },
  { title: "server KiB per socket ↓", figure: "kibPerSocket", digits: 1 },
  { title: "p50 ms ↓", figure: "p50Ms", digits: 2 },
  { title: "p99 ms ↓", figure: "p99Ms", digits: 2 },
  { title: "p99.9 ms ↓", figure: "p999Ms", digits: 2 },
  { title: "p99.9 ms, 200 come and go ↓", figure: "p999BesideMs", digits: 2 },
  { title: "deliveries/s ↑", figure: "deliveriesPerS", digits: 0 },
  { title: "server CPU µs per message ↓", figure: "cpuUsPerMessage", digits: 1 },
  { title: "fan-out ms ↓", figure: "fanOutMs", digits: 1 },
  { title: "open+close/s ↑", figure: "cyclesPerS", digits: 0 },
];

/** Marks the row of a system that lost, doubled or mixed up messages, failed, or left something behind. */
const MARK = "⚠";

/**
 * @param runs Per system, in the order of the rows, the figures of each run. A system without any is left out.
 * @param reference Name of the system that ratios are against.
 */
export function formatTable(runs: ReadonlyMap<string, readonly Figures[]>, reference: string): string {
  const base = runs.get(reference) ?? [];
  const rows = [
    ["system", ...COLUMNS.map(({ title }) => title), "arrive at open", "lost / doubled / disordered", "runs"],
  ];
  for (const [name, figures] of runs) {
    if (figures.length === 0) continue;
    const sum = (figure: keyof Figures) => figures.reduce((sum, run) => sum + run[figure], 0);
    const isFaulty = ["lost", "duplicated", "disordered", "failed", "left"].some((figure) =>
      sum(figure as keyof Figures) !== 0
    );
    rows.push([
      isFaulty ? `${MARK} ${name}` : name,
      ...COLUMNS.map(({ figure, digits }) => {
        const value = medianOf(figures, figure);
        const ratio = value / medianOf(base, figure);
        const shown = grouped(value, digits);
        return name === reference || !Number.isFinite(ratio) ? shown : `${shown} (${ratio.toFixed(2)}×)`;
      }),
      `${grouped(medianOf(figures, "atOpenPercent"), 0)} %`,
      `${sum("lost")} / ${sum("duplicated")} / ${sum("disordered")}` +
      (sum("failed") > 0 ? `, ${sum("failed")} failed` : "") +
      (sum("left") !== 0 ? `, ${sum("left")} left in Redis` : ""),
      String(figures.length),
    ]);
  }
  return layOut(rows);
}

/** The middle of the runs; not a number without any. */
function medianOf(runs: readonly Figures[], figure: keyof Figures): number {
  const sorted = runs.map((run) => run[figure]).sort((a, b) => a - b);
  return (sorted[sorted.length - 1 >> 1]! + sorted[sorted.length >> 1]!) / 2;
}

function grouped(value: number, digits: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Aligned as `deno fmt` aligns it. */
export function layOut(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  const [head, ...body] = rows.map((cells) => cells.map((cell, column) => cell.padEnd(widths[column]!)));
  const rule = widths.map((width) => "-".repeat(width));
  return [head!, rule, ...body].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}
