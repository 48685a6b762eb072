/**
 * The OpenAPI document in other people's hands: it passes the recommended rules of a linter, and a client that is
 * generated from it, type-checked, calls every operation.
 */
import { assertEquals } from "@std/assert";
import { createConfig, lintFromString } from "../packages/redocly.ts";
import openapiTypescript, { astToString } from "../packages/openapi_typescript.ts";
import { newKey } from "../../src/auth/keys.ts";
import { CLOSED } from "../../testkit/closed.ts";
import { Service } from "../../testkit/service.ts";
import { openClient } from "../../testkit/ws_client.ts";

Deno.test("/openapi.json passes the recommended rules of Redocly", async () => {
  await using service = await Service.start();
  const source = await (await service.fetch("/openapi.json")).text();
  const problems = await lintFromString({
    source,
    absoluteRef: "openapi.json",
    config: await createConfig({ extends: ["recommended"] }),
  });
  assertEquals(problems.map(({ severity, ruleId, message }) => `${severity} ${ruleId}: ${message}`), []);
});

const KEY = newKey("client", { scopes: ["send", "read", "groups", "admin"], users: "*|@*" });

/** Written as somebody would who has nothing but the generated types. */
const PROGRAM = `
import createClient from "openapi-fetch";
import type { paths } from "./schema.ts";

const { URL: baseUrl = "", KEY = "" } = Deno.env.toObject();
const api = createClient<paths>({ baseUrl, headers: { authorization: \`Bearer \${KEY}\` } });
const statuses: Record<string, number> = {};
function note<T extends { response: Response; error?: unknown }>(name: string, answer: T): T {
  statuses[name] = answer.response.status;
  if (answer.error !== undefined) console.error(name, answer.error);
  return answer;
}
const alice = { path: { username: "alice" } };

const sent = note("sendMessage", await api.POST("/v1/users/{username}/messages", {
  params: { ...alice, query: { ttl: 60, wait: "ack", timeout: 1 }, header: { "idempotency-key": "k" } },
  body: { order: 7 },
}));
const seq: number | undefined = sent.data?.seq;
const batch = note("sendMessages", await api.POST("/v1/messages", {
  params: { header: { "idempotency-key": "k" } },
  body: {
    items: [
      { to: "alice", data: { order: 8 }, ttl: 60, id: "x" },
      { to: ["alice", "bob"], text: "hi", expect: "online" },
      { to: "alice", base64: "AA==" },
    ],
  },
}));
const broadcast = note("sendBroadcast", await api.POST("/v1/broadcast", {
  params: { query: { ttl: 60 }, header: { "idempotency-key": "k" } },
  body: { maintenance: "22:00" },
}));
const nodes: number | undefined = broadcast.data?.nodes;
// The same call answers in lines to who sends lines.
const reached = batch.data && "results" in batch.data ? batch.data.results[0]?.sockets : undefined;
const team = { path: { group: "team" } };
const member = { path: { group: "team", username: "bob" } };
const made = note("putGroup", await api.PUT("/v1/groups/{group}", {
  params: { ...team, header: { "if-match": '"0"' } },
  body: { users: ["alice"] },
}));
const version: number | undefined = made.data?.version;
note("changeGroup", await api.PATCH("/v1/groups/{group}", { params: team, body: { add: ["carol"] } }));
note("addMember", await api.PUT("/v1/groups/{group}/users/{username}", { params: member }));
note("getGroup", await api.GET("/v1/groups/{group}", { params: team }));
note("getMembers", await api.GET("/v1/groups/{group}/users", { params: { ...team, query: { limit: 10 } } }));
note("sendToGroup", await api.POST("/v1/groups/{group}/messages", {
  params: { ...team, query: { ttl: 60, except: "bob" }, header: { "idempotency-key": "k" } },
  body: { order: 9 },
}));
note("getUserGroups", await api.GET("/v1/users/{username}/groups", { params: alice }));
note("removeMember", await api.DELETE("/v1/groups/{group}/users/{username}", { params: member }));
note("leaveGroups", await api.DELETE("/v1/users/{username}/groups", { params: alice }));
note("deleteGroup", await api.DELETE("/v1/groups/{group}", { params: team }));
note("getUser", await api.GET("/v1/users/{username}", { params: alice }));
note("headUser", await api.HEAD("/v1/users/{username}", { params: alice }));
note("getOnline", await api.POST("/v1/users/online", { body: { users: ["alice", "bob"] } }));
const history = note("getMessages", await api.GET("/v1/users/{username}/messages", {
  params: { ...alice, query: { after: "0", limit: 2 } },
}));
const items: number | undefined = history.data?.items.length;
const bought = note("createTicket", await api.POST("/v1/tickets", { body: { user: "alice", reuse: true } }));
const query = { ticket: bought.data?.ticket ?? "" };
const client = createClient<paths>({ baseUrl });
const stream = note("openStream", await client.GET("/v1/events", { params: { query }, parseAs: "stream" }));
const head = new TextDecoder().decode((await stream.data!.getReader().read()).value);
const conn = /"conn":"(.+?)"/.exec(head)?.[1] ?? "";
note("sendFrame", await client.POST("/v1/events/{conn}", {
  params: { path: { conn }, query },
  body: { t: "ack", seq: 1 },
}));
const connections = note("getConnections", await api.GET("/v1/users/{username}/connections", { params: alice }));
const unanswered: number | undefined = connections.data?.unanswered;
note("closeConnection", await api.DELETE("/v1/users/{username}/connections/{conn}", {
  params: { path: { username: "alice", conn }, query: { code: 4403 } },
}));
const there = note("getNodes", await api.GET("/v1/nodes"));
const node: string | undefined = there.data?.items[0]?.node;
void [unanswered, node];
const numbers = note("getStats", await api.GET("/v1/stats", { parseAs: "stream" }));
await numbers.data!.cancel();
const looked = note("getFindings", await api.GET("/v1/doctor"));
const found: string | undefined = looked.data?.findings[0]?.says;
void found;
note("createRevocation", await api.POST("/v1/users/{username}/revocations", {
  params: alice,
  body: { jti: "x" },
}));
note("closeConnections", await api.DELETE("/v1/users/{username}/connections", {
  params: { ...alice, query: { code: 4403, why: "enough" } },
}));
note("getHealth", await api.GET("/healthz"));
note("getReadiness", await api.GET("/readyz"));
note("getMetrics", await api.GET("/metrics", { parseAs: "text" }));
note("setLogLevel", await api.PUT("/v1/log-level", { body: { level: "warn", area: "http" } }));
note("getLogLevel", await api.GET("/v1/log-level"));
// Last, since it takes no more connections then.
note("startDrain", await api.POST("/v1/drain"));
note("getDrain", await api.GET("/v1/drain"));
note("stopDrain", await api.DELETE("/v1/drain"));
// @ts-expect-error -- what the document does not know the client does not take
void (() => api.GET("/nowhere"));
// @ts-expect-error -- a number, not text
void (() => api.GET("/v1/users/{username}/messages", { params: { ...alice, query: { limit: "2" } } }));
console.log(JSON.stringify({ statuses, seq, reached, nodes, items }));
`;

Deno.test("A TypeScript client generated from /openapi.json calls every operation", async () => {
  await using service = await Service.start({ ...CLOSED, USERWIRE_API_KEYS: KEY.line }, {
    look: () => Promise.resolve([{ check: "deno", state: "ok", says: "version 2" }]),
  });
  const ticket = await (await service.fetch("/v1/tickets", {
    method: "POST",
    headers: { authorization: `Bearer ${KEY.key}`, "content-type": "application/json" },
    body: '{"user":"alice"}',
  })).json();
  await using _alice = await openClient(ticket.url);
  const document = await (await service.fetch("/openapi.json")).json();
  const folder = await Deno.makeTempDir({ prefix: "userwire-openapi-" });
  try {
    await Deno.writeTextFile(`${folder}/schema.ts`, astToString(await openapiTypescript(document)));
    await Deno.writeTextFile(`${folder}/program.ts`, PROGRAM);
    const { href } = new URL("../packages/openapi_fetch.ts", import.meta.url);
    await Deno.writeTextFile(`${folder}/deno.json`, JSON.stringify({ imports: { "openapi-fetch": href } }));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--check", "--allow-net", "--allow-env", `${folder}/program.ts`],
      cwd: folder,
      env: { URL: service.server.url, KEY: KEY.key, NO_COLOR: "1" },
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    if (!success) throw new Error(decoder.decode(stderr));
    const { statuses, ...rest } = JSON.parse(decoder.decode(stdout));
    const ids = Object.values(document.paths as Record<string, Record<string, { operationId: string }>>)
      .flatMap((path) => Object.values(path).map(({ operationId }) => operationId));
    assertEquals(Object.keys(statuses).sort(), ids.sort(), "every operation is called");
    const failed = Object.entries(statuses).filter(([, status]) => Number(status) >= 300);
    assertEquals(failed, [], decoder.decode(stderr));
    assertEquals(rest, { seq: 1, reached: 1, nodes: 1, items: 2 });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
