/**
 * The port for operators of several processes: `/readyz` and `/metrics` of all of them, `/healthz`, and the calls that ask
 * or tell each of them. On the port that they share a random one answers. Who may read is decided by the processes: the key that a request shows is passed on,
 * and their refusal is the answer. So the supervisor knows no keys.
 */
import type { Config } from "../config/settings.ts";
import { problem } from "../http/problem.ts";
import { isLoopback } from "../net/addresses.ts";
import { hostGuard } from "../net/origin.ts";
import { ownHostReader } from "../net/own_host.ts";
import type { Child } from "./child.ts";
import { mergeMetrics } from "./merge.ts";

/** Calls that are passed on to each process, with their methods. */
const PASSED_ON: ReadonlyMap<string, readonly string[]> = new Map([
  ["/v1/drain", ["GET", "POST", "DELETE"]],
  ["/v1/log-level", ["GET", "PUT"]],
]);
/** Of a body that is passed on, in bytes: none of them says much. */
const MAX_BODY_BYTES = 1_024;

interface OpsOptions extends Pick<Config, "opsHost"> {
  /** The processes that live. */
  children(): readonly Child[];
  /** How many there should be. */
  readonly count: number;
}

/** What one process said. */
interface Answered {
  readonly process: number;
  readonly answer: Response;
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
    const methods = PASSED_ON.get(pathname);
    if (methods?.includes(request.method)) return tellAll(request, pathname);
    if (methods) {
      const allow = methods.join(", ");
      return problem("method_not_allowed", `${pathname} takes ${allow}`, { allow });
    }
    const answer = { "/healthz": health, "/readyz": readiness, "/metrics": metrics }[pathname];
    if (!answer) {
      return problem(
        "not_found",
        `There is no ${pathname} here: GET /metrics, /readyz or /healthz, or call ${
          [...PASSED_ON.keys()].join(" or ")
        }`,
      );
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

  /** What each process says, or the first refusal. */
  async function askAll(request: Request, path: string, body?: string): Promise<Answered[] | Response> {
    const headers: Record<string, string> = {};
    for (const name of ["authorization", "content-type", "x-request-id"]) {
      const value = request.headers.get(name);
      if (value !== null) headers[name] = value;
    }
    const { method } = request;
    const init = { method, headers, ...(body !== undefined && { body }) };
    const asked = children().map(async (child) => ({
      process: child.place.number,
      answer: await child.ask(path, init),
    }));
    const answered = (await Promise.allSettled(asked)).flatMap((result) =>
      result.status === "fulfilled" ? [result.value] : []
    );
    if (answered.length === 0) return problem("draining", "No process answers: GET /readyz says more");
    return answered.find(({ answer }) => !answer.ok)?.answer ?? answered;
  }

  async function tellAll(request: Request, path: string): Promise<Response> {
    let body: string | undefined;
    if (request.method === "PUT") {
      if (!(Number(request.headers.get("content-length") ?? NaN) <= MAX_BODY_BYTES)) {
        return problem("too_large", `The body must say its length, and have at most ${MAX_BODY_BYTES} bytes`);
      }
      body = await request.text();
    }
    const answered = await askAll(request, path, body);
    if (answered instanceof Response) return answered;
    const processes = answered.map(async ({ process, answer }) => ({ process, ...await answer.json() }));
    return Response.json({ processes: await Promise.all(processes) });
  }

  async function metrics(request: Request): Promise<Response> {
    const answered = await askAll(request, "/metrics");
    if (answered instanceof Response) return answered;
    const texts = await Promise.all(
      answered.map(async ({ process, answer }) => ({ process, text: await answer.text() })),
    );
    return new Response(mergeMetrics(texts), {
      headers: { "content-type": answered[0]!.answer.headers.get("content-type")! },
    });
  }
}
