/**
 * What clients that stopped reading cost: a real service process on a real Redis, a hundred healthy clients, a hundred
 * stalled ones, and messages of 10 KiB to both. In one run it measures the healthy ones alone, then both; then it goes
 * on sending to the stalled ones until nothing more fits anywhere, and at last lets them read again.
 *
 * Three claims are checked, and the exit code is 1 when one does not hold: the process grows by no more than the sum of
 * the marks plus 20 %, the healthy ones' p99 latency stays within twice its value, and whoever reads again gets all
 * that the history has, in order, and a gap for the rest.
 *
 * Settings, as environment variables: CLIENTS (of each kind, 100), MESSAGES (to each kind, 10000), RATE (per second to
 * each kind, 1000), FILL (more messages to the stalled ones, 60000).
 */
import { createHistogram } from "node:perf_hooks";
import manifest from "../deno.json" with { type: "json" };
import { Publisher } from "../src/publisher.ts";
import { RedisServer } from "../tests/support/redis_server.ts";
import { Peer } from "./stalled_peer.ts";

const CLIENTS = setting("CLIENTS", 100);
const MESSAGES = setting("MESSAGES", 10_000);
const RATE = setting("RATE", 1_000);
const FILL = setting("FILL", 60_000);
const MARK_BYTES = 1024 * 1024;
const HISTORY = 100;
const PAYLOAD = "x".repeat(10 * 1024);
const MIB = 1024 * 1024;

function setting(name: string, fallback: number): number {
  return Number(Deno.env.get(name) ?? fallback);
}

/** The service as a process of its own. */
async function startService(redisUrl: string) {
  const [deno, ...args] = manifest.tasks.start.command.split(" ");
  const logDir = await Deno.makeTempDir({ prefix: "userwire-bench-" });
  const child = new Deno.Command(deno === "deno" ? Deno.execPath() : deno!, {
    args,
    cwd: new URL("../", import.meta.url),
    env: {
      PORT: "0",
      REDIS_URL: redisUrl,
      LOG_DIR: logDir,
      LOG_LEVEL: "warn",
      LOG_FORMAT: "json",
      USERWIRE_NODE: "bench",
      USERWIRE_HISTORY: String(HISTORY),
      USERWIRE_MAX_BUFFERED_BYTES: String(MARK_BYTES),
      // The stalled ones are to be there at the end.
      USERWIRE_SLOW_TIMEOUT_S: "3600",
      USERWIRE_DRAIN_S: "1",
    },
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
  return { child, logDir };
}
