/** What the log of a service says first: which of its settings an operator should know of. */
import { assertEquals } from "@std/assert";
import { logBanner } from "../../src/server/banner.ts";
import { VERSION } from "../../src/server/app.ts";
import { loadConfig } from "../../testkit/config.ts";
import { memoryLog } from "../../testkit/memory_log.ts";

/** The lines after "listening". */
function linesWith(env: Record<string, string>, auth = { isOpen: true, takesTokens: false }): unknown[] {
  const log = memoryLog();
  const at = { url: "http://localhost:1/", node: "here" };
  logBanner(log, loadConfig({ env }), { ...at, app: { auth: auth as never } });
  const [first, ...others] = log.records;
  assertEquals(first, { level: "info", event: "listening", fields: { ...at, version: VERSION } });
  return others.map(({ level, event, fields }) => [level, event, fields]);
}

const REDIS = { REDIS_URL: "redis://localhost" };
const MEMORY = ["warn", "broker in memory: users of this one node only; set REDIS_URL to scale out", {}];
const OPEN = ["warn", "open mode: any program on this machine may connect and send as anyone", {}];
const WIDE_OPEN = [
  "warn",
  "open mode: every client that reaches this address may connect and send as anyone",
  {},
];

Deno.test("logBanner warns of a service in memory, and of open mode as far as it reaches", () => {
  assertEquals(linesWith({}), [MEMORY, OPEN]);
  assertEquals(linesWith({ ...REDIS, HOST: "localhost" }), [OPEN]);
  assertEquals(linesWith({ REDIS_URL_FILE: "/run/url" }), [OPEN]);
  assertEquals(linesWith({ ...REDIS, HOST: "0.0.0.0", USERWIRE_OPEN: "true" }), [WIDE_OPEN]);
});

Deno.test("logBanner says what callers of a closed service need, and warns of wide origins", () => {
  const closed = { isOpen: false, takesTokens: true };
  const tokens = { tokens: true };
  const needs = ["info", "closed mode: callers need a key, sockets a token or a ticket", tokens];
  assertEquals(linesWith(REDIS, closed), [needs]);
  const reason = "pages of every site may call and connect";
  const wide = ["warn", "allowed origin is wide", { origin: "*", reason }];
  assertEquals(linesWith({ ...REDIS, USERWIRE_ALLOWED_ORIGINS: "*" }, closed), [wide, needs]);
});
