/**
 * The port for monitoring of several processes: `/readyz` and `/metrics` of all of them, and `/healthz`. On the port that
 * they share a random one answers. Who may read is decided by the processes: the key that a request shows is passed on,
 * and their refusal is the answer. So the supervisor knows no keys.
 */
import type { Config } from "../config/settings.ts";
import { problem } from "../http/problem.ts";
import { isLoopback } from "../net/addresses.ts";
import { hostGuard } from "../net/origin.ts";
import { ownHostReader } from "../net/own_host.ts";
import type { Child } from "./child.ts";
import { mergeMetrics } from "./merge.ts";

interface OpsOptions extends Pick<Config, "opsHost"> {
  /** The processes that live. */
  children(): readonly Child[];
  /** How many there should be. */
  readonly count: number;
}

export function opsHandler(
  { opsHost, children, count }: OpsOptions,
): Deno.ServeHandler<Deno.NetAddr> {
  const ownHostOf = ownHostReader([]);
  // A page whose own host name leads to 127.0.0.1 gets no answer, see `net/origin.ts`.
  const isOwnHost = isLoopback(opsHost) ? hostGuard(opsHost, []) : () => true;
  return (request, info) => {
    const own = ownHostOf(request, info);
    if (own === undefined || !isOwnHost(own)) {
      return problem("misdirected", "Only this machine's own names are answered: call it localhost");
    }
    const { pathname } = new URL(request.url);
    const answer = { "/healthz": health, "/readyz": readiness, "/metrics": metrics }[pathname];
    if (!answer) {
      return problem("not_found", `There is no ${pathname} here: GET /metrics, /readyz or /healthz`);
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      return problem("method_not_allowed", `${pathname} takes GET, HEAD`, { allow: "GET, HEAD" });
    }
    return answer(request);
  };

  function health(): Response {
    return Response.json({ status: "ok" });
  }

  async function readiness(): Promise<Response> {
    const processes = await Promise.all(
      children().map(async (child) => ({ process: child.place.number, ...await child.readiness() })),
    );
    const ready = processes.some(({ ready }) => ready);
    const body = { ready, ...(!ready && { why: "No process is ready" }), expected: count, processes };
    return Response.json(body, { status: ready ? 200 : 503 });
  }

  async function metrics(request: Request): Promise<Response> {
    const key = request.headers.get("authorization");
    const headers: Record<string, string> = key === null ? {} : { authorization: key };
    const asked = children().map(async (child) => ({
      process: child.place.number,
      answer: await child.ask("/metrics", headers),
    }));
    const answered = (await Promise.allSettled(asked)).flatMap((result) =>
      result.status === "fulfilled" ? [result.value] : []
    );
    const first = answered[0]?.answer;
    if (!first) return problem("draining", "No process answers: GET /readyz says more");
    const refused = answered.find(({ answer }) => !answer.ok);
    if (refused) return refused.answer;
    const texts = await Promise.all(
      answered.map(async ({ process, answer }) => ({ process, text: await answer.text() })),
    );
    return new Response(mergeMetrics(texts), {
      headers: { "content-type": first.headers.get("content-type")! },
    });
  }
}
