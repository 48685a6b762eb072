/** `GET /v1/users/{username}/messages`: what is kept of a user's messages. */
import { createRoute, z } from "@hono/zod-openapi";
import { assertMayAddress } from "../../auth/auth.ts";
import { BrokerUnavailableError } from "../../protocol/errors.ts";
import { parsePosition } from "../../protocol/position.ts";
import { problem } from "../problem.ts";
import { authorize, type Call, queryOf, usernameIn } from "./call.ts";
import { check, json, no, number, REFUSALS, SECURITY, UserParameter } from "./shapes.ts";

const HistoryQuery = z.strictObject({
  after: z.string().regex(
    /^(\d{1,15}|[\w-]{1,32}\.\d{1,15}(\.[\w-]{8})?)$/,
    "must be a number, or a position such as Zk3vQ9aB.17",
  )
    .optional().openapi({
      param: { name: "after", in: "query" },
      description:
        "Sequence number or position to begin after, with or without its tag; a position of another epoch, or with another message's tag, is 410",
    }),
  limit: number(1, 1_000).optional().openapi({ description: "At most so many messages; 100 if not given" }),
});

const History = z.object({
  epoch: z.string().openapi({ description: "Empty when the user was never seen" }),
  first: z.number().int().openapi({ description: "Number of the first item; 0 without items" }),
  last: z.number().int().openapi({
    description: "Number of the newest message ever sent; 0 before the first",
  }),
  items: z.array(
    z.object({
      t: z.literal("m"),
      seq: z.number().int(),
      tag: z.string().optional().openapi({ description: "Proof for a position after this message" }),
      id: z.string(),
      ts: z.number(),
      enc: z.literal("base64").optional().openapi({ description: "How the bytes in `data` are written" }),
      g: z.string().optional().openapi({ description: "The group that it was sent to" }),
      data: z.unknown(),
    }),
  ),
}).openapi("History");

export const history: Call = {
  route: createRoute({
    method: "get",
    path: "/v1/users/{username}/messages",
    operationId: "getMessages",
    security: SECURITY,
    summary: "What is kept of a user's messages",
    request: { params: UserParameter, query: HistoryQuery },
    responses: {
      200: json(
        History,
        "Messages, oldest first; where the rest can't be read any more, the answer ends before its JSON does",
      ),
      410: no("The position is of another epoch: the history was lost or set back"),
      ...REFUSALS,
    },
  }),
  async answer(c, api) {
    const caller = authorize(c, api, "read");
    const query = check(HistoryQuery, queryOf(c.req.raw) ?? {});
    if ("fault" in query) return problem("invalid_request", query.fault);
    const { after = "0", limit } = query.value;
    const position = parsePosition(after);
    const username = usernameIn(c);
    assertMayAddress(caller, [username]);
    const { epoch, first, last, parts, afterTag } = await api.publisher.historyInParts(username, {
      after: position?.seq ?? Number(after),
      ...(limit !== undefined && { limit }),
    });
    const isOther = position?.tag !== undefined && afterTag !== "" && position.tag !== afterTag;
    if (position && (position.epoch !== epoch || isOther)) {
      const found = isOther
        ? "The number belongs to another message now"
        : `The epoch is ${epoch || "gone"} now`;
      return problem("epoch_changed", `${found}: read from the beginning, without "after"`);
    }
    // The frames are JSON already, and keep the payloads as they were sent.
    const head = JSON.stringify({ epoch, first, last }).slice(0, -1) + ',"items":[';
    return c.body(await bodyOf(head, parts), 200, { "content-type": "application/json" });
  },
};

/**
 * A text where it is short. Else a part is read when those before were taken: callers who ask for much, or take nothing,
 * do not fill the memory.
 */
async function bodyOf(
  head: string,
  parts: AsyncGenerator<string[], void>,
): Promise<string | ReadableStream<Uint8Array<ArrayBuffer>>> {
  const first = await parts.next();
  if (first.done) return `${head}]}`;
  const begin = head + first.value.join(",");
  const second = await parts.next();
  if (second.done) return `${begin}]}`;
  return ReadableStream.from(textsOf(begin, second.value, parts)).pipeThrough(new TextEncoderStream());
}

async function* textsOf(
  begin: string,
  second: string[],
  parts: AsyncGenerator<string[], void>,
): AsyncGenerator<string, void> {
  yield begin;
  yield `,${second.join(",")}`;
  try {
    for await (const part of parts) yield `,${part.join(",")}`;
    yield "]}";
  } catch (error) {
    // The status is out: an answer that ends before its JSON does can't be taken for a whole one. The log has the reason.
    if (!(error instanceof BrokerUnavailableError)) throw error;
  }
}
