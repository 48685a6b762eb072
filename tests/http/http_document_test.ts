/**
 * What the service says about itself: `/openapi.json` is a sound document and every call answers as it says, with
 * each status it names; the files of the page carry what browsers need; what is not there is said to be so; pages of
 * other sites are kept out. What the API does is in `http_api_test.ts`.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { assets } from "../../src/web/assets.ts";
import { until } from "../../testkit/deadline.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { Service } from "../../testkit/service.ts";
import { SseClient } from "../../testkit/sse_client.ts";
import { openClient, type WsClient } from "../../testkit/ws_client.ts";

// ---------------------------------------------------------------------------------------------------------
// The document

/** As much of JSON Schema as the document uses; a keyword beyond it fails the test. */
interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  type?: string;
  enum?: unknown[];
  pattern?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: boolean | Schema;
  items?: Schema;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  minItems?: number;
  maxItems?: number;
  format?: string;
  description?: string;
  example?: unknown;
}
const KEYWORDS = new Set([
  ...["$ref", "anyOf", "type", "enum", "pattern", "properties", "required", "additionalProperties", "items"],
  ...["minimum", "maximum", "minLength", "minItems", "maxItems", "format", "description", "example"],
]);

type Content = Record<string, { schema: Schema }>;

interface Operation {
  operationId: string;
  summary: string;
  parameters?: { name: string; in: string; required: boolean; schema: Schema }[];
  requestBody?: { required: boolean; content: Content };
  responses: Record<string, { description: string; content?: Content }>;
}

interface OpenApi {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

async function readDocument(service: Service): Promise<OpenApi> {
  const response = await service.fetch("/openapi.json");
  assertEquals([response.status, response.headers.get("content-type")], [200, "application/json"]);
  return await response.json();
}

function operationsOf(document: OpenApi): [call: string, operation: Operation][] {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]): [string, Operation] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ])
  );
}

function resolve(schema: Schema, document: OpenApi): Schema {
  if (schema.$ref === undefined) return schema;
  const target = document.components.schemas[schema.$ref.replace("#/components/schemas/", "")];
  assert(target, `${schema.$ref} leads nowhere`);
  return resolve(target, document);
}

/** Whether the value is what the schema says. */
function fits(value: unknown, reference: Schema, document: OpenApi): boolean {
  const schema = resolve(reference, document);
  for (const keyword of Object.keys(schema)) {
    assert(KEYWORDS.has(keyword), `Keyword "${keyword}" is new here`);
  }
  if (schema.anyOf) return schema.anyOf.some((choice) => fits(value, choice, document));
  if (schema.enum && !schema.enum.includes(value)) return false;
  switch (schema.type) {
    case undefined:
      return true;
    case "boolean":
      return typeof value === "boolean";
    case "number":
      return typeof value === "number";
    case "integer":
      return Number.isInteger(value) && Number(value) >= (schema.minimum ?? -Infinity) &&
        Number(value) <= (schema.maximum ?? Infinity);
    case "string":
      return typeof value === "string" && (!schema.pattern || new RegExp(schema.pattern, "u").test(value));
    case "array":
      return Array.isArray(value) && value.length >= (schema.minItems ?? 0) &&
        value.length <= (schema.maxItems ?? Infinity) &&
        value.every((item) => fits(item, schema.items ?? {}, document));
    case "object": {
      if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
      if (schema.required?.some((name) => !Object.hasOwn(value, name))) return false;
      return Object.entries(value).every(([name, member]) => {
        const known = schema.properties?.[name] ?? schema.additionalProperties ?? false;
        return typeof known === "boolean" ? known : fits(member, known, document);
      });
    }
    default:
      throw new Error(`Type "${schema.type}" is none of JSON Schema`);
  }
}

Deno.test("/openapi.json is a sound OpenAPI 3.1 document", async () => {
  await using service = await Service.start();
  const document = await readDocument(service);
  assertMatch(document.openapi, /^3\.1\.\d$/);
  assertEquals(document.info.title, "Userwire");
  assertMatch(document.info.version, /^\d+\.\d+\.\d+/);
  const ids = operationsOf(document).map(([, { operationId }]) => operationId);
  assert(ids.every((id) => /^[a-z][A-Za-z]+$/.test(id)) && new Set(ids).size === ids.length, String(ids));
  // What is a number is one in the document: generated clients take no text for it.
  const whole = operationsOf(document).flatMap(([, { parameters = [] }]) => parameters)
    .filter(({ name }) => ["ttl", "timeout", "limit", "code"].includes(name));
  assertEquals(whole.length, 9);
  for (const { schema: { type, minimum, maximum } } of whole) {
    assertEquals([type, typeof minimum, typeof maximum], ["integer", "number", "number"]);
  }
  for (const [call, { summary, parameters = [], requestBody, responses }] of operationsOf(document)) {
    const [method, path] = call.split(" ") as [string, string];
    assertMatch(method, /^(GET|HEAD|POST|PUT|PATCH|DELETE)$/);
    assert(path.startsWith("/") && summary !== "", call);
    const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    assertEquals(parameters.filter((parameter) => parameter.in === "path").map(({ name }) => name), inPath);
    for (const parameter of parameters) {
      const { required = false, schema } = parameter;
      assertEquals(required, parameter.in === "path", call);
      if (parameter.in === "path") assertEquals(schema.type, "string");
    }
    const isBare = path.endsWith("/users/{username}") || path === "/v1/drain";
    assertEquals(requestBody !== undefined, /^P/.test(method) && !isBare, call);
    for (const [status, { description, content = {} }] of Object.entries(responses)) {
      assert(/^[1-5]\d\d$/.test(status) && description !== "", call);
      for (const { schema } of Object.values(content)) resolve(schema, document);
    }
  }
});

// ---------------------------------------------------------------------------------------------------------
// Every call answers as documented

interface Call {
  /** Template of the path in the document. */
  to: string;
  status: number;
  username?: string;
  group?: string;
  body?: string;
  type?: string;
  origin?: string;
  query?: string;
  headers?: Record<string, string>;
  /** Whether it goes to a node that wants a key, without one. */
  isClosed?: boolean;
  /** Whether it goes to a node whose only group is full and is being sent to. */
  isBusy?: boolean;
  /** Whether it goes to a node that can't reach its Redis. */
  isCutOff?: boolean;
  /** Whether it goes to one of several processes on a port. */
  isOneOfSeveral?: boolean;
  /** Whether the body has no end. */
  isEndless?: boolean;
}

const SEND = "POST /v1/users/{username}/messages";
const HISTORY = "GET /v1/users/{username}/messages";
const CLOSE = "DELETE /v1/users/{username}/connections";
const CONNECTIONS = "GET /v1/users/{username}/connections";
const CLOSE_ONE = "DELETE /v1/users/{username}/connections/{conn}";
const NODES = "GET /v1/nodes";
const STATS = "GET /v1/stats";
const DOCTOR = "GET /v1/doctor";
const BATCH = "POST /v1/messages";
const BROADCAST = "POST /v1/broadcast";
const GROUP = "/v1/groups/{group}";
const MEMBER = `${GROUP}/users/{username}`;
const GROUP_SEND = `POST ${GROUP}/messages`;
const USER_GROUPS = "/v1/users/{username}/groups";
const USER = "GET /v1/users/{username}";
const USER_HEAD = "HEAD /v1/users/{username}";
const ONLINE = "POST /v1/users/online";
const TICKET = "POST /v1/tickets";
const STREAM = "GET /v1/events";
const FRAME = "POST /v1/events/{conn}";
const REVOCATION = "POST /v1/users/{username}/revocations";
const LOG_LEVEL = "PUT /v1/log-level";
const FOR_ALICE = '{"user":"alice"}';
const ITEMS = '{"items":[{"to":["alice","bob"],"data":1}]}';
const USERS = '{"users":["alice","bob"]}';
const ELSEWHERE = "https://elsewhere.example";
/** The least that a service can be told to take of headers, in bytes. */
const MAX_HEADER_BYTES = 1024;
const LARGE = { "x-large": "x".repeat(MAX_HEADER_BYTES) };
const HUGE = " ".repeat(4 * 1024 * 1024 + 1);

/** What every call answers to who may not, or sends too much of a head, and when Redis is away. */
const refused = (to: string, body?: string): Call[] => [
  { to, status: 401, isClosed: true, ...(body && { body }) },
  { to, status: 403, origin: ELSEWHERE, ...(body && { body }) },
  { to, status: 431, headers: LARGE },
  { to, status: 503, isCutOff: true, ...(body && { body }) },
];
/** The same of one that takes a body, and of the body. */
const refusedWith = (to: string, body: string): Call[] => [
  ...refused(to, body),
  { to, status: 400, body: '{"users":7}' },
  { to, status: 408, isEndless: true },
  { to, status: 413, body: HUGE },
  { to, status: 415, body, type: "text/html" },
];

const GROUP_CALLS: Call[] = [
  { to: `PUT ${GROUP}`, status: 200, body: '{"users":["alice"]}' },
  { to: `PUT ${GROUP}`, status: 200, group: "away", body: '{"users":["bob"]}' },
  { to: `PUT ${GROUP}`, status: 412, body: '{"users":["bob"]}', headers: { "if-match": '"1"' } },
  ...refusedWith(`PUT ${GROUP}`, '{"users":[]}'),
  { to: `PATCH ${GROUP}`, status: 200, body: '{"add":["carol"]}' },
  ...refusedWith(`PATCH ${GROUP}`, '{"add":["carol"]}'),
  { to: GROUP_SEND, status: 200, body: "1" },
  { to: GROUP_SEND, status: 202, body: "1", group: "away" },
  { to: GROUP_SEND, status: 404, body: "1", group: "none" },
  { to: GROUP_SEND, status: 400, body: "1", query: "ttl=0" },
  { to: GROUP_SEND, status: 408, isEndless: true },
  { to: GROUP_SEND, status: 413, body: " ".repeat(65_537) },
  { to: GROUP_SEND, status: 415, body: "1", type: "text/html" },
  { to: GROUP_SEND, status: 200, body: "1", headers: { "idempotency-key": "k" } },
  { to: GROUP_SEND, status: 422, body: "2", headers: { "idempotency-key": "k" } },
  { to: GROUP_SEND, status: 429, body: "1", group: "busy", isBusy: true },
  ...refused(GROUP_SEND, "1"),
  { to: `GET ${GROUP}`, status: 200 },
  { to: `GET ${GROUP}`, status: 400, group: "a b" },
  { to: `GET ${GROUP}`, status: 404, group: "none" },
  ...refused(`GET ${GROUP}`),
  { to: `GET ${GROUP}/users`, status: 200 },
  { to: `GET ${GROUP}/users`, status: 400, query: "limit=0" },
  { to: `GET ${GROUP}/users`, status: 404, group: "none" },
  ...refused(`GET ${GROUP}/users`),
  { to: `PUT ${MEMBER}`, status: 200, username: "dave" },
  { to: `PUT ${MEMBER}`, status: 400, username: "a b" },
  { to: `PUT ${MEMBER}`, status: 413, group: "busy", isBusy: true },
  ...refused(`PUT ${MEMBER}`),
  { to: `DELETE ${MEMBER}`, status: 200, username: "dave" },
  { to: `DELETE ${MEMBER}`, status: 400, username: "a b" },
  ...refused(`DELETE ${MEMBER}`),
  { to: `GET ${USER_GROUPS}`, status: 200 },
  { to: `GET ${USER_GROUPS}`, status: 400, username: "a b" },
  ...refused(`GET ${USER_GROUPS}`),
  { to: `DELETE ${USER_GROUPS}`, status: 200, username: "carol" },
  { to: `DELETE ${USER_GROUPS}`, status: 400, username: "a b" },
  ...refused(`DELETE ${USER_GROUPS}`),
  { to: `DELETE ${GROUP}`, status: 200 },
  { to: `DELETE ${GROUP}`, status: 400, group: "a b" },
  { to: `DELETE ${GROUP}`, status: 404, group: "none" },
  ...refused(`DELETE ${GROUP}`),
];

const AS_ALICE = { query: "username=alice" };
const STREAM_CALLS: Call[] = [
  { to: STREAM, status: 200, ...AS_ALICE },
  { to: STREAM, status: 400, query: "username=alice&resume=x" },
  { to: STREAM, status: 429, query: "username=dave", isBusy: true },
  ...refused(STREAM).map((call) => ({ ...call, ...AS_ALICE })),
  { to: FRAME, status: 204, body: '{"t":"p"}', ...AS_ALICE },
  { to: FRAME, status: 404, body: '{"t":"p"}', query: "username=bob" },
  ...refusedWith(FRAME, '{"t":"p"}').map((call) => ({ ...call, ...AS_ALICE })),
];

const CALLS: Call[] = [
  ...GROUP_CALLS,
  ...STREAM_CALLS,
  { to: SEND, status: 200, body: "1" },
  { to: SEND, status: 202, body: "1", username: "bob" },
  { to: SEND, status: 400, body: "1", username: "a b" },
  { to: SEND, status: 403, body: "1", origin: ELSEWHERE },
  { to: SEND, status: 408, isEndless: true },
  { to: SEND, status: 413, body: " ".repeat(65_537) },
  { to: SEND, status: 415, body: "1", type: "text/html" },
  { to: SEND, status: 503, body: "1", isCutOff: true },
  { to: SEND, status: 404, body: "1", username: "bob", query: "expect=online" },
  { to: SEND, status: 200, body: "1", headers: { "idempotency-key": "k" } },
  { to: SEND, status: 422, body: "2", headers: { "idempotency-key": "k" } },
  { to: HISTORY, status: 200 },
  { to: HISTORY, status: 200, query: "after=0&limit=1" },
  { to: HISTORY, status: 400, query: "limit=0" },
  { to: HISTORY, status: 401, isClosed: true },
  { to: HISTORY, status: 403, origin: ELSEWHERE },
  { to: HISTORY, status: 410, query: "after=other.1" },
  { to: HISTORY, status: 503, isCutOff: true },
  { to: CLOSE, status: 200, username: "carol" },
  { to: CLOSE, status: 400, query: "code=1" },
  { to: CLOSE, status: 401, isClosed: true },
  { to: CLOSE, status: 403, origin: ELSEWHERE },
  { to: CLOSE, status: 503, isCutOff: true },
  { to: CONNECTIONS, status: 200 },
  { to: CONNECTIONS, status: 200, username: "bob" },
  { to: CONNECTIONS, status: 400, username: "a b" },
  ...refused(CONNECTIONS),
  { to: CLOSE_ONE, status: 400, query: "code=1" },
  { to: CLOSE_ONE, status: 404, username: "bob" },
  { to: CLOSE_ONE, status: 200 },
  ...refused(CLOSE_ONE),
  { to: NODES, status: 200 },
  ...refused(NODES),
  { to: STATS, status: 200 },
  { to: STATS, status: 429, isBusy: true },
  { to: DOCTOR, status: 200 },
  { to: DOCTOR, status: 404, isBusy: true },
  // They are answered also where Redis is away, and then say so.
  ...[STATS, DOCTOR].flatMap((to) => refused(to).filter(({ isCutOff }) => !isCutOff)),
  { to: STATS, status: 200, isCutOff: true },
  { to: SEND, status: 401, body: "1", isClosed: true },
  { to: BATCH, status: 401, body: ITEMS, isClosed: true },
  { to: USER, status: 401, isClosed: true },
  { to: USER_HEAD, status: 401, isClosed: true },
  { to: ONLINE, status: 401, body: USERS, isClosed: true },
  { to: TICKET, status: 201, body: FOR_ALICE },
  { to: TICKET, status: 400, body: "{}" },
  { to: TICKET, status: 401, body: FOR_ALICE, isClosed: true },
  { to: TICKET, status: 403, body: FOR_ALICE, origin: ELSEWHERE },
  { to: TICKET, status: 408, isEndless: true },
  { to: TICKET, status: 413, body: HUGE },
  { to: TICKET, status: 415, body: FOR_ALICE, type: "text/plain" },
  { to: TICKET, status: 503, body: FOR_ALICE, isCutOff: true },
  { to: REVOCATION, status: 201, body: '{"jti":"x"}' },
  { to: REVOCATION, status: 201, body: "{}", username: "bob" },
  { to: REVOCATION, status: 400, body: '{"jti":7}' },
  { to: REVOCATION, status: 401, body: "{}", isClosed: true },
  { to: REVOCATION, status: 403, body: "{}", origin: ELSEWHERE },
  { to: REVOCATION, status: 408, isEndless: true },
  { to: REVOCATION, status: 413, body: HUGE },
  { to: REVOCATION, status: 415, body: "{}", type: "text/plain" },
  { to: REVOCATION, status: 503, body: "{}", isCutOff: true },
  { to: BATCH, status: 200, body: ITEMS },
  { to: BATCH, status: 400, body: "{}" },
  { to: BATCH, status: 403, body: ITEMS, origin: ELSEWHERE },
  { to: BATCH, status: 408, isEndless: true },
  { to: BATCH, status: 413, body: HUGE },
  { to: BATCH, status: 415, body: ITEMS, type: "text/plain" },
  { to: BATCH, status: 503, body: ITEMS, isCutOff: true },
  { to: BROADCAST, status: 200, body: "1" },
  { to: BROADCAST, status: 400, body: "1", query: "ttl=0" },
  { to: BROADCAST, status: 401, body: "1", isClosed: true },
  { to: BROADCAST, status: 403, body: "1", origin: ELSEWHERE },
  { to: BROADCAST, status: 408, isEndless: true },
  { to: BROADCAST, status: 413, body: " ".repeat(65_537) },
  { to: BROADCAST, status: 415, body: "1", type: "text/html" },
  { to: BROADCAST, status: 503, body: "1", isCutOff: true },
  { to: BROADCAST, status: 200, body: "1", headers: { "idempotency-key": "k" } },
  { to: BROADCAST, status: 422, body: "2", headers: { "idempotency-key": "k" } },
  { to: USER, status: 200 },
  { to: USER, status: 200, username: "bob" },
  { to: USER, status: 400, username: "userwire:x" },
  { to: USER, status: 403, origin: ELSEWHERE },
  { to: USER, status: 503, isCutOff: true },
  { to: USER_HEAD, status: 200 },
  { to: USER_HEAD, status: 404, username: "bob" },
  { to: USER_HEAD, status: 400, username: "{}" },
  { to: USER_HEAD, status: 403, origin: ELSEWHERE },
  { to: USER_HEAD, status: 503, isCutOff: true },
  { to: ONLINE, status: 200, body: USERS },
  { to: ONLINE, status: 400, body: '{"users":"alice"}' },
  { to: ONLINE, status: 403, body: USERS, origin: ELSEWHERE },
  { to: ONLINE, status: 408, isEndless: true },
  { to: ONLINE, status: 413, body: HUGE },
  { to: ONLINE, status: 415, body: USERS, type: "application/x-www-form-urlencoded" },
  { to: ONLINE, status: 503, body: USERS, isCutOff: true },
  { to: "GET /metrics", status: 200 },
  { to: "GET /metrics", status: 401, isClosed: true },
  { to: "GET /metrics", status: 403, origin: ELSEWHERE },
  { to: "GET /metrics", status: 404, isOneOfSeveral: true },
  ...[SEND, HISTORY, CLOSE, BATCH, BROADCAST, USER, USER_HEAD, ONLINE, TICKET, REVOCATION, "GET /metrics"]
    .map((to): Call => ({ to, status: 431, headers: LARGE })),
  { to: BATCH, status: 200, body: ITEMS, headers: { "idempotency-key": "k" } },
  {
    to: BATCH,
    status: 422,
    body: '{"items":[{"to":"bob","text":"x"}]}',
    headers: { "idempotency-key": "k" },
  },
  ...["GET /healthz", "GET /readyz"].flatMap((to): Call[] => [
    { to, status: 403, origin: ELSEWHERE },
    { to, status: 431, headers: LARGE },
  ]),
  { to: "GET /healthz", status: 200 },
  { to: "GET /healthz", status: 200, isCutOff: true },
  { to: "GET /readyz", status: 200 },
  { to: "GET /readyz", status: 503, isCutOff: true },
  ...["GET /v1/drain", "POST /v1/drain", "DELETE /v1/drain", "GET /v1/log-level", LOG_LEVEL].flatMap(
    (to): Call[] => [
      {
        to,
        status: to.startsWith("POST") ? 202 : 200,
        ...(to === LOG_LEVEL && { body: '{"level":"info"}' }),
      },
      { to, status: 401, isClosed: true },
      { to, status: 403, origin: ELSEWHERE },
      { to, status: 404, isOneOfSeveral: true },
      { to, status: 431, headers: LARGE },
    ],
  ),
  { to: LOG_LEVEL, status: 200, body: '{"level":"debug","area":"http"}' },
  { to: LOG_LEVEL, status: 400, body: '{"level":"loud"}' },
  { to: LOG_LEVEL, status: 400, body: '{"level":"info","area":"kitchen"}' },
  { to: LOG_LEVEL, status: 408, isEndless: true },
  { to: LOG_LEVEL, status: 413, body: HUGE },
  { to: LOG_LEVEL, status: 415, body: "{}", type: "text/plain" },
];

Deno.test("Every call answers with each status that /openapi.json names, and as it says", async (t) => {
  await using service = await Service.start({
    USERWIRE_BODY_TIMEOUT_S: "1",
    USERWIRE_MAX_HEADER_BYTES: String(MAX_HEADER_BYTES),
  }, { look: () => Promise.resolve([{ check: "deno", state: "ok", says: "version 2" }]) });
  await using closed = await Service.start({ USERWIRE_API_KEYS_FILE: "/dev/null" });
  await using cutOff = await Service.start({ REDIS_URL: "redis://127.0.0.1:1" });
  using port = OwnPort.take();
  const opsPath = `${await Deno.makeTempDir({ prefix: "userwire-document-" })}/1.sock`; // goes with the service
  const place = { number: 1, of: 2, port: port.number, opsPath };
  await using oneOfSeveral = await Service.start({}, { place });
  await using _alice = await openClient(service.socketUrl("alice"));
  await using stream = await SseClient.open(service.socketUrl("alice"));
  const conn = await stream.conn();
  await using busy = await Service.start({
    ...{ USERWIRE_MAX_GROUP_USERS: "1", USERWIRE_MAX_GROUP_SENDS: "1" },
    USERWIRE_MAX_CONNECTIONS_PER_USER: "1",
  });
  await using dave = await openClient(busy.socketUrl("dave"), "userwire.v1");
  await using _watching = await holdStats(busy);
  await using _sending = await holdGroupSend(busy, dave);
  const document = await readDocument(service);
  const documented = operationsOf(document);

  for (const call of CALLS) {
    const { to, status, username = "alice", body, type, origin, query = "", headers } = call;
    const { isCutOff, isClosed, isOneOfSeveral, isEndless, isBusy, group = "team" } = call;
    const title = `${to}?${query} as ${username}${origin ? ` from ${origin}` : ""}`;
    await t.step(`${title} answers ${status}`, async () => {
      const [method, path] = to.split(" ") as [string, string];
      const asked = isBusy
        ? busy
        : isCutOff
        ? cutOff
        : isClosed
        ? closed
        : isOneOfSeveral
        ? oneOfSeveral
        : service;
      const response = await asked.fetch(
        `${
          path.replace("{username}", encodeURIComponent(username)).replace(
            "{group}",
            encodeURIComponent(group),
          ).replace("{conn}", conn)
        }?${query}`,
        {
          method,
          headers: { "content-type": type ?? "application/json", ...(origin && { origin }), ...headers },
          ...(body !== undefined && { body }),
          ...(isEndless &&
            { body: new ReadableStream({ start: (body) => body.enqueue(new TextEncoder().encode(" ")) }) }),
        },
      );
      const isStream = response.headers.get("content-type") === "text/event-stream";
      if (isStream) await response.body!.cancel();
      const text = isStream ? "" : await response.text();
      assertEquals(response.status, status, text);
      assertEquals(response.headers.has("retry-after"), [429, 503].includes(status) && path !== "/readyz");

      const answer = documented.find(([call]) => call === to)?.[1].responses[status];
      assert(answer, "The document does not know this status");
      if (answer.content === undefined) return assertEquals(text, "");
      const [[contentType, { schema }]] = Object.entries(answer.content) as [[string, { schema: Schema }]];
      assertEquals(response.headers.get("content-type"), contentType);
      const value = contentType.includes("json") ? JSON.parse(text) : text;
      assert(fits(value, schema, document), `Not as documented: ${text}`);
      if (contentType === "application/problem+json") assertEquals(JSON.parse(text).status, status);
    });
  }

  const named = documented.flatMap(([call, { responses }]) =>
    Object.keys(responses).map((status) => `${call} ${status}`)
  );
  const tried = new Set(CALLS.map(({ to, status }) => `${to} ${status}`));
  assertEquals(named.filter((answer) => !tried.has(answer)), [], "each documented answer has a call above");
});

/** Opens as many streams of numbers as there may be. */
async function holdStats(service: Service): Promise<AsyncDisposable> {
  const streams = new AsyncDisposableStack();
  for (let i = 0; i < 16; i++) {
    streams.use(await SseClient.open(new URL("/v1/stats", service.server.url)));
  }
  return streams;
}

/** Sends to the group "busy", and waits for a client that acknowledges nothing until this is disposed of. */
async function holdGroupSend(service: Service, dave: WsClient): Promise<AsyncDisposable> {
  const init = { headers: { "content-type": "application/json" }, body: '{"users":["dave"]}' };
  await (await service.fetch("/v1/groups/busy", { method: "PUT", ...init })).body?.cancel();
  const path = "/v1/groups/busy/messages";
  const sending = service.fetch(`${path}?wait=ack&timeout=30000`, { method: "POST", ...init });
  const status = async () => {
    const response = await service.fetch(path, { method: "POST", ...init });
    await response.body?.cancel();
    return response.status;
  };
  await until(async () => await status() === 429, "the send to be under way");
  return {
    async [Symbol.asyncDispose]() {
      // Higher than the number of any that it was sent.
      dave.send(JSON.stringify({ t: "ack", seq: 1_000 }));
      await (await sending).body?.cancel();
    },
  };
}

// ---------------------------------------------------------------------------------------------------------
// The page's files, and what is not there

Deno.test("The files of the page carry type, policy and version, and are not sent twice", async () => {
  await using service = await Service.start();
  assert(assets.size > 3);
  for (const [path, { body, type, etag }] of assets) {
    const answer = async (headers: HeadersInit = {}, method = "GET") => {
      const response = await service.fetch(path, { method, headers });
      return { status: response.status, headers: response.headers, body: await response.text() };
    };
    const first = await answer();
    assertEquals([first.status, first.body, first.headers.get("content-type")], [200, body, type]);
    assertEquals(first.headers.get("etag"), etag);
    assertMatch(first.headers.get("content-security-policy")!, /default-src 'self'.*frame-ancestors 'none'/);
    assertEquals(first.headers.get("x-content-type-options"), "nosniff");
    for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
      const again = await answer({ "if-none-match": known });
      assertEquals([again.status, again.body, again.headers.get("etag")], [304, "", etag]);
    }
    for (const other of ['"other"', etag.slice(1, -1)]) {
      assertEquals((await answer({ "if-none-match": other })).status, 200);
    }
    assertEquals((await answer({}, "HEAD")).body, "");
  }
});

const NOT_THERE: [request: string, status: number, allow: string | null][] = [
  ...["GET /nothing", "GET /v1", "POST /v1/users/alice/", "GET /v1/users/", "GET /v1/users//messages"]
    .map((request): [string, number, null] => [request, 404, null]),
  ...["GET /favicon.ico", "DELETE /v2/users/alice", "GET /Healthz", "GET /page.css/", "GET /../main.ts"]
    .map((request): [string, number, null] => [request, 404, null]),
  // Not by the method that is asked with: what takes it is another path.
  ["GET /page.js/../healthz", 404, null],
  // A rule of a proxy about "/v1/" does not see this one.
  ["GET /%761/users/alice", 404, null],
  // Nor do we see a path of two parts where it sees one: this is a user with a strange name.
  ["POST /v1/users/alice\\messages", 405, "GET, HEAD"],
  ["PUT /v1/users/alice/messages", 405, "POST, GET, HEAD"],
  ["POST /v1/users/alice/connections", 405, "GET, HEAD, DELETE"],
  ["GET /v1/users/alice/connections/x", 405, "DELETE"],
  ["OPTIONS /v1/messages", 405, "POST"],
  ["PUT /v1/users/alice", 405, "GET, HEAD"],
  ["DELETE /v1/users/online", 405, "GET, HEAD, POST"],
  ["POST /healthz", 405, "GET, HEAD"],
  ["PATCH /openapi.json", 405, "GET, HEAD"],
  ["POST /metrics", 405, "GET, HEAD"],
  ["POST /", 405, "GET, HEAD"],
  ["TRACE /page.css", 405, "GET, HEAD"],
  ["GET /ws", 426, null],
];

Deno.test("What is not there, or not by this method, is answered with a problem that says so", async (t) => {
  await using service = await Service.start();
  for (const [request, status, allow] of NOT_THERE) {
    await t.step(`${request} answers ${status}`, async () => {
      // As bytes, because fetch changes some paths and refuses some methods.
      await using socket = await RawSocket.dial(service.server.url);
      socket.sendBytes(`${request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      const answer = await socket.readAnswer();
      assertEquals([answer.status, answer.headers.get("allow")], [status, allow], answer.body);
      assertEquals(answer.headers.get("content-type"), "application/problem+json");
      const problem = JSON.parse(answer.body);
      assertEquals(Object.keys(problem), ["type", "title", "status", "code", "detail", "request_id"]);
      assertEquals([problem.status, problem.type], [status, `urn:userwire:problem:${problem.code}`]);
    });
  }
});

// ---------------------------------------------------------------------------------------------------------
// Origins

const ORIGINS: [allowed: string, origin: string | null, ok: boolean][] = [
  ["", null, true],
  ["", "http://HOST", true],
  ["", "https://HOST", true], // behind a proxy that ends TLS
  ["", "http://elsewhere.example", false],
  ["", "http://127.0.0.1", false], // the same machine, another port
  ["", "http://HOST.elsewhere.example", false],
  ["", "null", false],
  ["", "HOST", false],
  ["https://app.example", "https://app.example", true],
  ["https://app.example", "http://HOST", true],
  ["https://app.example", "http://app.example", false],
  ["https://app.example", "https://app.example:8443", false],
  ["https://app.example", "https://sub.app.example", false],
  ["https://a.example, https://b.example", "https://b.example", true],
  ["*", "https://elsewhere.example", true],
  ["*", "null", true],
];

for (const [allowed, origin, ok] of ORIGINS) {
  Deno.test(
    `A page of ${origin ?? "no origin"} ${
      ok ? "may" : "may not"
    } call and connect when "${allowed}" is allowed`,
    async () => {
      await using service = await Service.start({ USERWIRE_ALLOWED_ORIGINS: allowed });
      const { host } = new URL(service.server.url);
      const headers: Record<string, string> = origin === null ? {} : { Origin: origin.replace("HOST", host) };
      const call = await service.fetch("/v1/users/alice", { headers });
      await using socket = await RawSocket.open(service.socketUrl("alice"), { headers });
      assertEquals([call.status, socket.answer.status], ok ? [200, 101] : [403, 403]);
      const body = await call.text();
      if (ok) return;
      for (const problem of [body, socket.answer.body]) {
        assertEquals(JSON.parse(problem).code, "origin_not_allowed");
        assertMatch(JSON.parse(problem).detail, /USERWIRE_ALLOWED_ORIGINS/);
      }
    },
  );
}

Deno.test("HEAD says the length of what GET says", async () => {
  await using service = await Service.start();
  for (const path of ["/healthz", "/readyz", "/openapi.json", "/", "/v1/users/a%20b", "/nowhere"]) {
    const { hostname, port } = new URL(service.server.url);
    const conn = await Deno.connect({ hostname, port: Number(port) });
    const request = `HEAD ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`;
    await conn.write(new TextEncoder().encode(request));
    const head = await new Response(conn.readable).text();
    const got = await service.fetch(path);
    const { byteLength } = await got.arrayBuffer();
    assertMatch(
      head,
      new RegExp(`^HTTP/1.1 ${got.status} [^]*\\r\\ncontent-length: ${byteLength}\\r\\n`),
      path,
    );
    assert(head.endsWith("\r\n\r\n"), "no body");
  }
});
