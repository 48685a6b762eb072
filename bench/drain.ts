/**
 * The curve by which clients of the library come back when a node drains: two nodes and Redis behind HAProxy, all clients on
 * the first, which is then told to drain.
 *
 *     deno task drain [--clients 2000] [--window 10]
 *
 * Prints how many arrive at the other node in each second. No second may have more than twice the mean: else it ends with 1.
 */
import { parseArgs } from "node:util";
import { connect } from "../src/client/mod.ts";
import { until } from "../testkit/deadline.ts";
import { startHaProxy } from "../testkit/ha_proxy.ts";
import { ProcessService } from "../testkit/process_service.ts";
import { RedisServer } from "../testkit/redis_server.ts";

/** So many clients connect at one time. */
const AT_ONCE = 50;
/** One HAProxy lets no more than a thousand in from one address. */
const EACH_PROXY = 900;
/** How long HAProxy may take to see that a node is ready or is not, twice over. */
const SEEN_MS = 5_000;
const PATIENCE_MS = 120_000;

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "2000" },
    window: { type: "string", default: "10" },
  },
});
const count = Number(values.clients);
const windowS = Number(values.window);
if (!(count > 0 && windowS > 0)) {
  console.error("error: --clients and --window must be numbers above 0");
  Deno.exit(2);
}
Deno.exitCode = await run();

async function run(): Promise<number> {
  await using redis = await RedisServer.start({ args: ["--maxclients", String(2 * count + 1_000)] });
  const env = {
    REDIS_URL: redis.url,
    USERWIRE_DRAIN_S: String(windowS),
    USERWIRE_UPGRADES_PER_SECOND: "0",
    USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "0",
  };
  await using first = await ProcessService.start(env);
  await using second = await ProcessService.start(env);
  await using proxies = new AsyncDisposableStack();
  const urls: string[] = [];
  while (urls.length * EACH_PROXY < count) {
    urls.push(proxies.use(await startHaProxy([first.url, second.url])).url);
  }
  await tell(second, "POST");
  await new Promise((resolve) => setTimeout(resolve, SEEN_MS));

  const clients: ReturnType<typeof connect>[] = [];
  try {
    for (let at = 0; at < count; at += AT_ONCE) {
      const opened = Array.from({ length: Math.min(AT_ONCE, count - at) }, (_, i) => {
        const client = connect(urls[Math.floor((at + i) / EACH_PROXY)]!, { user: `user-${at + i}` });
        clients.push(client);
        return new Promise<void>((resolve) => client.on("open", () => resolve()));
      });
      await Promise.all(opened);
    }
    await tell(second, "DELETE");
    await new Promise((resolve) => setTimeout(resolve, SEEN_MS));
    console.log(`${count} clients on one node of two; it drains over ${windowS} s`);
    await tell(first, "POST");
    const arrivals = () => second.records.filter(({ event }) => event === "connection opened");
    await until(
      () => arrivals().length >= count,
      "all clients to arrive",
      PATIENCE_MS,
      () => arrivals().length,
    );
    return report(arrivals().map(({ time }) => Date.parse(String(time))));
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}

async function tell(service: ProcessService, method: string): Promise<void> {
  const response = await fetch(new URL("/v1/drain", service.url), { method });
  await response.body?.cancel();
}

/** @param times Unix milliseconds of each arrival. */
function report(times: readonly number[]): number {
  const startMs = Math.min(...times);
  const seconds: number[] = new Array(Math.ceil((Math.max(...times) - startMs + 1) / 1_000)).fill(0);
  for (const ms of times) seconds[Math.floor((ms - startMs) / 1_000)]!++;
  const mean = times.length / seconds.length;
  const most = Math.max(...seconds);
  for (const [second, arrived] of seconds.entries()) {
    console.log(
      `${String(second).padStart(3)} s ${String(arrived).padStart(5)} ${
        "#".repeat(Math.round(arrived * 50 / most))
      }`,
    );
  }
  console.log(`mean ${mean.toFixed(0)} a second, most ${most}: ${(most / mean).toFixed(2)} times the mean`);
  return most <= 2 * mean ? 0 : 1;
}
