/**
 * Metrics of several processes as one text, in the text format of Prometheus: every sample is there once for each process,
 * with a label that says of which. Nothing is summed up: that is a question's to decide, and for gauges and start times
 * a sum would mean nothing. Pure.
 */

/** What one process has said. */
export interface ProcessText {
  readonly process: number;
  /** A whole text, as `Metrics.text` makes it: HELP, TYPE and then the samples of each family. */
  readonly text: string;
}

/** @returns A family once, though only one process may have it: others may be older, or newer. */
export function mergeMetrics(texts: readonly ProcessText[]): string {
  /** The samples of each family, by the two lines that begin it. */
  const families = new Map<string, { head: string; samples: string[] }>();
  for (const { process, text } of texts) {
    let family: { head: string; samples: string[] } | undefined;
    for (const line of text.split("\n")) {
      if (line === "") continue;
      const [, word, name = ""] = /^# (HELP|TYPE) (\S+)/.exec(line) ?? [];
      if (word === undefined) {
        family?.samples.push(labelled(line, process));
        continue;
      }
      family = families.get(name) ?? { head: "", samples: [] };
      families.set(name, family);
      if (!family.head.includes(`# ${word} `)) family.head += `${line}\n`;
    }
  }
  let merged = "";
  for (const { head, samples } of families.values()) {
    merged += `${head}${samples.join("\n")}${samples.length ? "\n" : ""}`;
  }
  return merged;
}

function labelled(sample: string, process: number): string {
  const label = `process="${process}"`;
  const end = sample.search(/[{ ]/);
  const name = sample.slice(0, end), rest = sample.slice(end);
  return rest.startsWith("{") ? `${name}{${label},${rest.slice(1)}` : `${name}{${label}}${rest}`;
}
