/**
 * What questions to Prometheus ask for: enough of their language to say which series of a node they need, and no more.
 * Whether Prometheus understands them is asked of itself, see `tests/programs/monitoring.ts`.
 */

/** Series that a question asks for. */
export interface Selector {
  readonly metric: string;
  readonly matchers: readonly { readonly label: string; readonly operator: string; readonly value: string }[];
}

/** Labels that Prometheus adds to each series. */
export const OWN_LABELS: readonly string[] = ["job", "instance"];

export function selectorsIn(expr: string): Selector[] {
  return [...expr.matchAll(/\b((?:userwire|process)_\w+|up)\b(?:\{([^}]*)\})?/g)].map((
    [, metric, inside],
  ) => ({
    metric: metric!,
    matchers: [...(inside ?? "").matchAll(/(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"/g)].map(
      ([, label, operator, value]) => ({ label: label!, operator: operator!, value: value! }),
    ),
  }));
}

/** Labels by which a question groups. */
export function groupingsIn(expr: string): string[] {
  return [...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, labels]) => labels!.split(/,\s*/));
}

/** A series as `parseMetrics` names it, taken apart. */
function readSeries(series: string): { name: string; labels: ReadonlyMap<string, string> } {
  const [, name, inside = ""] = /^(\w+)(?:\{(.*)\})?$/.exec(series)!;
  const labels = [...inside.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, value]) =>
    [label!, value!] as const
  );
  return { name: name!, labels: new Map(labels) };
}

/**
 * What a question asks for that no node has.
 * @param served All series of real nodes.
 * @returns A line for each; empty when each metric is there, with each label and value that is named.
 */
export function missingIn(expr: string, served: Iterable<string>): string[] {
  const all = [...served].map(readSeries);
  const missing: string[] = [];
  const named = new Set<string>();
  for (const { metric, matchers } of selectorsIn(expr)) {
    if (metric === "up") continue; // Prometheus' own
    const series = all.filter(({ name }) => name === metric);
    if (series.length === 0) missing.push(metric);
    for (const { labels } of series) for (const label of labels.keys()) named.add(label);
    for (const { label, value, operator } of matchers) {
      if (OWN_LABELS.includes(label)) continue;
      const values = operator.includes("~") ? value.split("|") : [value];
      for (const one of values) {
        if (!series.some(({ labels }) => labels.get(label) === one)) {
          missing.push(`${metric}{${label}="${one}"}`);
        }
      }
    }
  }
  const unknown = groupingsIn(expr).filter((label) => !OWN_LABELS.includes(label) && !named.has(label));
  return [...missing, ...unknown.map((label) => `by (${label})`)];
}
