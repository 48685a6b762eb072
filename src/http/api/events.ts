/** `GET /v1/events` and `POST /v1/events/{conn}`: a connection over plain HTTP, down and up. */
import { createRoute, z } from "@hono/zod-openapi";
import { type Call, segmentOf } from "./call.ts";
import { BODY_REFUSALS, no, REFUSALS } from "./shapes.ts";

/** Who connects. */
const identity = {
  username: z.string().optional().openapi({ description: "Who connects, in open mode", example: "alice" }),
  ticket: z.string().optional().openapi({
    description: "A ticket; a browser's EventSource needs one made with `reuse`",
  }),
};

const position = z.string().optional();

const StreamQuery = z.object({
  ...identity,
  resume: position.openapi({
    description: "Position to resume from; `Last-Event-ID` wins over it",
    example: "Zk3vQ9aB.17",
  }),
  all: position.openapi({ description: "The same for broadcasts", example: "Zk3vQ9aB.3" }),
  ping: z.string().regex(/^\d{1,9}$/).optional().openapi({
    description: "Seconds of silence after which a comment is sent, 15 to 300",
  }),
});

export const openStream: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/events",
    operationId: "openStream",
    security: [{}], // a client shows a token or a ticket, and no key
    summary: "Connect as a user by server-sent events",
    description: "For networks that block WebSockets. Shows who connects as a socket does: a token in " +
      "`Authorization`, a ticket, or in open mode a name. Each event is a frame of `userwire.v1`: `event` is its " +
      "type, `data` the frame, `id` the position after it. It ends after five minutes; a browser's EventSource " +
      "comes back by itself, and goes on where it was.",
    request: {
      query: StreamQuery,
      headers: z.object({
        "last-event-id": z.string().optional().openapi({ description: "Id of the last event that was read" }),
      }),
    },
    responses: {
      200: { description: "The frames", content: { "text/event-stream": { schema: { type: "string" } } } },
      429: no("This user or address has all the connections it may, or comes too often"),
      ...REFUSALS,
      401: no("Nothing that was shown lets in"),
      403: no("What was shown is for another user, or pages of this origin may not call"),
    },
  }),
  answer: (c, api) => api.streams.open(c.req.raw, c.env.info),
};

export const postToStream: Call = {
  route: createRoute({
    method: "post",
    path: "/v1/events/{conn}",
    operationId: "sendFrame",
    security: [{}], // a client shows a token or a ticket, and no key
    summary: "Send a frame to the service, as on the socket that a stream stands for",
    description: "Any node takes it. What a frame asks for is answered on the stream.",
    request: {
      params: z.object({
        conn: z.string().openapi({
          param: { name: "conn", in: "path" },
          description: "Id of the connection, from `hi`",
        }),
      }),
      query: z.object(identity),
      body: {
        required: true,
        content: {
          "application/json": {
            schema: z.looseObject({ t: z.string().openapi({ description: "Type of the frame" }) }).openapi(
              "ClientFrame",
              { example: { t: "ack", seq: 17 } },
            ),
          },
          "text/plain": { schema: { type: "string" } },
        },
      },
    },
    responses: {
      204: { description: "The connection has it" },
      404: no("The user has no such connection"),
      ...BODY_REFUSALS,
      ...REFUSALS,
      401: no("Nothing that was shown lets in"),
      403: no("What was shown is for another user, or pages of this origin may not call"),
    },
  }),
  answer: (c, api) => api.streams.take(c.req.raw, segmentOf(c), api.bodies.frame),
};
