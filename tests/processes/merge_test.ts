/** Metrics of several processes as one text. */
import { assertEquals } from "@std/assert";
import { mergeMetrics } from "../../src/processes/merge.ts";
import { bareMetrics } from "../../testkit/bare_metrics.ts";
import { parseMetrics } from "../../testkit/metrics_text.ts";

const metricsOf = (version: string) => bareMetrics({ version, files: { count: 3, limit: undefined } });

Deno.test("A merged text has each family once, and each sample of each process with its number", () => {
  const one = metricsOf("1"), two = metricsOf("2");
  one.onOpen("v1");
  one.onAnswer(0.002);
  two.onClose("v1", 1000);
  const texts = [{ process: 1, text: one.text() }, { process: 3, text: two.text() }];
  const merged = parseMetrics(mergeMetrics(texts));
  for (const { process, text } of texts) {
    for (const [series, value] of parseMetrics(text)) {
      const labelled = series.includes("{")
        ? series.replace("{", `{process="${process}",`)
        : `${series}{process="${process}"}`;
      if (!series.startsWith("process_resident")) assertEquals(merged.get(labelled), value, labelled);
    }
  }
  assertEquals(merged.size, texts.reduce((sum, { text }) => sum + parseMetrics(text).size, 0));
});

Deno.test("A family that only some processes have, as after an upgrade, is there once", () => {
  const old = "# HELP a A.\n# TYPE a gauge\na 1\n";
  const fresh =
    '# HELP b B.\n# TYPE b counter\nb{x="{ }"} 2\n# HELP a A, said better.\n# TYPE a gauge\na 3\n';
  assertEquals(
    mergeMetrics([{ process: 1, text: old }, { process: 2, text: fresh }]),
    '# HELP a A.\n# TYPE a gauge\na{process="1"} 1\na{process="2"} 3\n' +
      '# HELP b B.\n# TYPE b counter\nb{process="2",x="{ }"} 2\n',
  );
  assertEquals(mergeMetrics([]), "");
});
