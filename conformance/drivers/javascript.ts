/**
 * The client library as a program for the conformance kit:
 *
 *     deno task conform --hides-status -- deno run -A conformance/drivers/javascript.ts
 */
import { type Client, connect, type RequestError } from "../../src/client/mod.ts";

type Write = (line: Record<string, unknown>) => void;

/** Connects as the environment says, and writes what comes. */
export function drive(env: Record<string, string>, write: Write): Client {
  const { USERWIRE_URL, USERWIRE_USER, USERWIRE_TOKEN_URL, USERWIRE_PACE = "1", USERWIRE_REQUESTS = "[]" } =
    env;
  const pace = Number(USERWIRE_PACE);
  const common = {
    backoff: { baseMs: 500 * pace, maxMs: 30_000 * pace, steadyMs: 10_000 * pace },
    timeoutMs: 10_000 * pace,
    // The rules are those of sockets.
    transport: "websocket" as const,
  };
  const token = async () => await (await fetch(USERWIRE_TOKEN_URL!)).text();
  const identity = USERWIRE_TOKEN_URL === undefined ? { user: USERWIRE_USER! } : { token };
  const client = connect(USERWIRE_URL!, { ...identity, ...common });
  client.on("gap", ({ why, from, to, count }) => write({ gap: why, from, to, count }));
  client.on("message", ({ seq, data }) => write({ seq, ...payload(data) }));
  client.on("broadcast", ({ seq = null, data }) => write({ broadcast: seq, ...payload(data) }));
  client.on("broadcastGap", ({ why, from, to, count }) => write({ bgap: why, from, to, count }));
  for (
    const [i, { op, data }] of (JSON.parse(USERWIRE_REQUESTS) as { op: string; data?: unknown }[]).entries()
  ) {
    client.request(op, data).then(
      (data) => write({ answer: i, data }),
      ({ code, outcome }: RequestError) => write({ refused: i, code, outcome }),
    );
  }
  client.on("error", ({ message }) => console.error(message));
  return client;
}

function payload(data: unknown): Record<string, unknown> {
  return data instanceof Uint8Array ? { base64: data.toBase64() } : { data };
}

if (import.meta.main) {
  await drive(Deno.env.toObject(), (line) => console.log(JSON.stringify(line))).closed;
}
