/** `POST /v1/tickets`: a ticket, with which one connection is opened as a user. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress, MAX_TICKET_TTL_S } from "../../auth/auth.ts";
import { parseUsername } from "../../protocol/username.ts";
import { readJson } from "../body.ts";
import { STREAM_PATH } from "../event_stream.ts";
import { problem } from "../problem.ts";
import { authorize, type Call } from "./call.ts";
import { BODY_REFUSALS, bodyOf, check, json, REFUSALS, SECURITY, username } from "./shapes.ts";

const TicketQuery = z.strictObject({
  user: username,
  ttl: z.number().int().min(1).max(MAX_TICKET_TTL_S).optional().openapi({
    description: "How long the ticket is good for, in seconds; USERWIRE_TICKET_TTL_S if not given",
  }),
  reuse: z.boolean().optional().openapi({
    description:
      "Whether it is good for any number of connections until its time is up, as a browser's EventSource " +
      "needs it, which repeats its address; false if not given",
  }),
}).openapi("TicketQuery");

const Ticket = z.object({
  ticket: z.string().openapi({ description: "Good for one connection, or with `reuse` for any number" }),
  url: z.string().openapi({
    description:
      "Where to connect with it: at USERWIRE_PUBLIC_URL if that is set, else at the address by which this " +
      "call came, to a proxy of USERWIRE_TRUSTED_PROXIES if it says so in X-Forwarded-Proto and X-Forwarded-Host",
    example: "wss://push.example.com/ws?ticket=…",
  }),
  events: z.string().openapi({
    description: "The same for server-sent events",
    example: "https://push.example.com/v1/events?ticket=…",
  }),
}).openapi("Ticket");

export const tickets: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/tickets",
    operationId: "createTicket",
    security: SECURITY,
    summary: "Get a ticket, with which a client connects as a user",
    description:
      "One made with `reuse` is worth its connection to whoever reads it in a log, until its time is up: " +
      "that it was made is logged.",
    request: { body: bodyOf(TicketQuery) },
    responses: { 201: json(Ticket, "The ticket"), ...BODY_REFUSALS, ...REFUSALS },
  }),
  async answer(c, api) {
    const caller = authorize(c, api, "tickets");
    const query = check(TicketQuery, await readJson(c.req.raw, api.bodies.small));
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { user, ttl = api.ticketTtlS, reuse = false } = query.value;
    assertMayAddress(caller, [user]);
    const ticket = await api.auth.issueTicket(parseUsername(user, api.names), ttl, { reuse });
    if (reuse) api.log.info("ticket made that may be used again", { user, key: caller.name, seconds: ttl });
    const url = api.socketUrlFor(c.env.own);
    const events = new URL(url.href.replace(/^ws/, "http").replace(/\/ws$/, STREAM_PATH));
    for (const address of [url, events]) address.searchParams.set("ticket", ticket);
    return c.json({ ticket, url: url.href, events: events.href }, 201, { "cache-control": "no-store" });
  },
};
