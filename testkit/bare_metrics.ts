/** Metrics of no service, for a test of what bumps or reads them. */
import { Metrics } from "../src/metrics/metrics.ts";

type Options = ConstructorParameters<typeof Metrics>[0];

export function bareMetrics(options: Partial<Options> = {}): Metrics {
  return new Metrics({
    version: "0",
    isBrokerAvailable: () => true,
    redisReconnects: () => 0,
    files: { count: 0, limit: undefined },
    lostSockets: () => 0,
    lostLines: () => 0,
    certificateEnds: () => ({}),
    refusals: [],
    webhookTypes: [],
    lagging: () => 0,
    ...options,
  });
}
