/** WebSockets and server-sent events keep the same promises: see `tests/contracts/connection.ts`. */
import { assertEquals } from "@std/assert";
import { protocolsFor } from "../../testkit/closed.ts";
import { nodesTest } from "../../testkit/nodes.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import type { Service } from "../../testkit/service.ts";
import { post, SseClient } from "../../testkit/sse_client.ts";
import { openClient } from "../../testkit/ws_client.ts";
import { Bell } from "../../testkit/deadline.ts";
import {
  type AnyFrame,
  type Asked,
  type Connection,
  keepsItsPromises,
  obeys,
  PROMISES_ENV,
  type Way,
} from "../contracts/connection.ts";

function urlFor(service: Service, { user, resume, all }: Asked): URL {
  const url = new URL(service.socketUrl(user));
  if (resume !== undefined) url.searchParams.set("resume", resume);
  if (all !== undefined) url.searchParams.set("all", all);
  return url;
}

const WEB_SOCKET: Way = {
  name: "WebSocket",
  async open(service, asked) {
    const protocols = asked.token === undefined ? ["userwire.v1"] : protocolsFor(asked.token);
    const client = await openClient(urlFor(service, asked), protocols);
    const frames: AnyFrame[] = [];
    const bell = new Bell();
    const read = async () => {
      while (true) {
        const frame = await client.nextJson(3_600_000);
        if (frame.t !== "p") frames.push(frame);
        bell.ring();
      }
    };
    const reading = read().catch(() => {});
    return {
      frames,
      until: (isSo, what) => bell.until(isSo, what, undefined, () => JSON.stringify(frames)),
      send: (frame) => Promise.resolve(client.send(JSON.stringify(frame))),
      ended: async () => void await client.closed,
      async [Symbol.asyncDispose]() {
        await client.close();
        await reading;
      },
    };
  },
  async refused(service, asked) {
    const protocols = asked.token === undefined ? ["userwire.v1"] : protocolsFor(asked.token);
    await using raw = await RawSocket.open(urlFor(service, asked), {
      headers: { "Sec-WebSocket-Protocol": protocols.join(", ") },
    });
    return { status: raw.answer.status, code: JSON.parse(raw.answer.body).code };
  },
};

function headersFor({ token }: Asked): { headers: Record<string, string> } {
  return { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } };
}

const SSE: Way = {
  name: "Server-sent events",
  async open(service, asked) {
    const client = await SseClient.open(urlFor(service, asked), headersFor(asked));
    assertEquals(client.response.status, 200);
    const connection: Connection = {
      get frames() {
        return client.events.map(({ frame }) => frame);
      },
      until: (isSo, what) => client.until(isSo, what),
      async send(frame, through) {
        const answer = await post(
          urlFor(through, asked),
          await client.conn(),
          frame,
          headersFor(asked).headers,
        );
        assertEquals(answer, { status: 204, code: undefined });
      },
      ended: () => client.ended(),
      [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
    };
    return connection;
  },
  async refused(service, asked) {
    await using client = await SseClient.open(urlFor(service, asked), headersFor(asked));
    return await client.problem();
  },
};

const { onEveryBroker } = nodesTest("Every way to connect");
for (const way of [WEB_SOCKET, SSE]) {
  onEveryBroker(
    `keeps its promises: ${way.name}`,
    (nodes, t) => keepsItsPromises(t, way, nodes),
    PROMISES_ENV,
  );
  Deno.test(`${way.name}: what lets in, and the end`, (t) => obeys(t, way));
}
