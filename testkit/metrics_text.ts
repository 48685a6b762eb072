/** A strict reader of the text in which Prometheus reads metrics. */
import { assert, assertEquals } from "@std/assert";

const SAMPLE = /^([a-z][a-z0-9_]*)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? (-?\d[\d.e+-]*)$/;

/**
 * Reads the text format, version 0.0.4, as strictly as it can be taken: each family once, HELP and TYPE before its
 * samples, no sample twice, and names as Prometheus wants them.
 * @returns The samples by name and labels, as they stand in the text.
 */
export function parseMetrics(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const families = new Set<string>();
  assert(text.endsWith("\n"), "the last line ends");
  const lines = text.split("\n").filter((line) => line !== "");
  while (lines.length > 0) {
    const [, family, help] = /^# HELP ([a-z][a-z0-9_]*) (.+)$/.exec(lines.shift()!) ?? [];
    assert(family && help && !families.has(family), `a family begins once, with HELP: ${family}`);
    families.add(family);
    const [, type] = new RegExp(`^# TYPE ${family} (counter|gauge|histogram)$`).exec(lines.shift()!) ?? [];
    assert(type, `${family} has a type`);
    assertEquals(family.endsWith("_total"), type === "counter", family);
    while (lines.length > 0 && !lines[0]!.startsWith("#")) {
      const line = lines.shift()!;
      const [, name, labels, value] = SAMPLE.exec(line) ?? [];
      assert(name !== undefined && Number.isFinite(Number(value)), line);
      const suffix = name.slice(family.length);
      assert(
        name.startsWith(family) && (type === "histogram" ? /^_(bucket|sum|count)$/ : /^$/).test(suffix),
        line,
      );
      const series = labels === undefined ? name : `${name}{${labels}}`;
      assert(!samples.has(series), `${series} stands there once`);
      samples.set(series, Number(value));
    }
    if (type === "histogram") assertSound(family, samples);
  }
  return samples;
}

/** The bound of a bucket, behind its other labels. */
const LE = /\{(?<others>.*)le="(?<bound>[^"]*)"\}$/;

/** Each bucket holds those before it, the last one all. */
function assertSound(family: string, samples: ReadonlyMap<string, number>): void {
  const all = [...samples].filter(([series]) => series.startsWith(`${family}_bucket{`))
    .map(([series, count]) => ({ ...LE.exec(series)!.groups as { others: string; bound: string }, count }));
  for (const [others = "", buckets] of Map.groupBy(all, ({ others }) => others)) {
    const { bound: last, count: total } = buckets.at(-1)!;
    const labels = others === "" ? "" : `{${others.slice(0, -1)}}`;
    assertEquals([last, total], ["+Inf", samples.get(`${family}_count${labels}`)!]);
    for (const [i, { bound, count }] of buckets.entries()) {
      if (i === 0) continue;
      const before = buckets[i - 1]!;
      assert(count >= before.count && Number(bound.replace("+Inf", "1e9")) > Number(before.bound), bound);
    }
  }
}
