/**
 * The client library as a program for the conformance kit:
 *
 *     deno task conform --hides-status -- deno run -A conformance/drivers/javascript.ts
 */
import { type Client, connect } from "../../src/client/mod.ts";

type Write = (line: Record<string, unknown>) => void;

/** Connects as the environment says, and writes what comes. */
export function drive(env: Record<string, string>, write: Write): Client {
  const { USERWIRE_URL, USERWIRE_USER, USERWIRE_TOKEN_URL, USERWIRE_PACE = "1" } = env;
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
  client.on("message", ({ seq, data }) => {
    write(data instanceof Uint8Array ? { seq, base64: data.toBase64() } : { seq, data });
  });
  client.on("error", ({ message }) => console.error(message));
  return client;
}

if (import.meta.main) {
  await drive(Deno.env.toObject(), (line) => console.log(JSON.stringify(line))).closed;
}
