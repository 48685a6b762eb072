/** Requests answered by the backend over HTTP: each is one signed webhook of the type `client.request`. */
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import { isJson } from "../protocol/json.ts";
import type { Answered, Unanswered, Webhook } from "../webhooks/webhook.ts";
import { Breaker } from "./breaker.ts";
import { type Answer, type ClientRequest, closeReasonOf, type Responder } from "./requests.ts";

export interface WebhookResponderOptions {
  readonly webhook: Pick<Webhook, "send">;
  /** Name of this node. */
  readonly node: string;
  readonly metrics: Pick<Metrics, "onWebhook">;
  readonly log: Log;
}

export const REQUEST_TYPE = "client.request";
/** Closes the client's connection with the code that it names, when the answer is 401 or 403. */
const CLOSE_HEADER = "userwire-close";
/** What a backend says is passed on in these lengths. */
const MAX_CODE_CHARS = 64;
const MAX_ERR_CHARS = 500;
/** No longer pause is passed on, in seconds. */
const MAX_RETRY_S = 3_600;

export class WebhookResponder implements Responder {
  readonly #options: WebhookResponderOptions;
  readonly #breaker: Breaker;
  #reason = "";

  constructor(options: WebhookResponderOptions) {
    this.#options = options;
    const { log } = options;
    this.#breaker = new Breaker((isAway) => {
      if (isAway) log.warn("requests not answered", { reason: this.#reason });
      else log.info("requests answered again");
    });
  }

  async respond(request: ClientRequest, signal: AbortSignal): Promise<Answer> {
    const entry = this.#breaker.enter();
    if (typeof entry === "number") {
      const err = "The backend has not answered for a while, and is left alone for a moment";
      return { outcome: "unavailable", code: "unavailable", err, retryMs: Math.ceil(entry) };
    }
    const { webhook, node, metrics } = this.#options;
    const { id, user, conn, op, json } = request;
    const head = JSON.stringify({ user, conn, node, op });
    const reply = await webhook.send({
      id: idOf(user, id),
      type: REQUEST_TYPE,
      atMs: Date.now(),
      data: json === undefined ? head : `${head.slice(0, -1)},"data":${json}}`,
    }, signal);
    const answer = "status" in reply ? answerOf(reply) : failureOf(reply);
    if (signal.aborted) {
      entry(undefined);
      return answer;
    }
    const isWell = answer.outcome !== "unavailable" && answer.outcome !== "timeout";
    if (!isWell) this.#reason = answer.err;
    entry(isWell);
    metrics.onWebhook(
      REQUEST_TYPE,
      isWell ? (answer.outcome === "answered" ? "delivered" : "refused") : "failed",
    );
    return answer;
  }
}

/**
 * Names the request among those of all users, the same whenever it is repeated. No user's name holds a colon, nor a dot,
 * when it is written so: nobody makes the id of another's request.
 */
function idOf(user: string, id: string): string {
  return `req_${encodeURIComponent(user).replaceAll(".", "%2E")}:${id}`;
}

function failureOf({ reason, isTimeout }: Unanswered): Answer {
  const outcome = isTimeout ? "timeout" : "unavailable";
  // What could not be reached is said in the log: it is no business of clients.
  const err = isTimeout ? `The backend gave ${reason}` : "The backend could not be reached";
  return { outcome, code: outcome, err, isUncertain: true };
}

function answerOf(reply: Answered): Answer {
  const { status, body } = reply;
  if (status >= 500 || (status >= 300 && status < 400)) {
    const err = `The backend answered ${status}`;
    return { outcome: "unavailable", code: "unavailable", err, retryMs: pauseOf(reply), isUncertain: true };
  }
  if (status >= 400) return refusalOf(reply);
  if (body !== undefined && body.trim() === "") return { outcome: "answered", json: undefined };
  if (body !== undefined && isJson(body)) return { outcome: "answered", json: body };
  const err = body === undefined ? "The backend's answer is too large" : "The backend's answer is no JSON";
  return { outcome: "bad_answer", code: "bad_answer", err, isUncertain: true };
}

/** With the words of a problem body (RFC 9457), where there is one. */
function refusalOf(reply: Answered): Answer {
  const { status, body = "" } = reply;
  let problem: { code?: unknown; detail?: unknown; title?: unknown } | null = null;
  try {
    problem = JSON.parse(body);
  } catch {
    // Then the status has to do.
  }
  const { code, detail, title } = problem ?? {};
  const text = [detail, title].find((one) => typeof one === "string" && one !== "") as string | undefined;
  const err = text?.slice(0, MAX_ERR_CHARS) ?? `The backend answered ${status}`;
  return {
    outcome: "refused",
    code: typeof code === "string" && code !== "" ? code.slice(0, MAX_CODE_CHARS) : "refused",
    err,
    retryMs: pauseOf(reply),
    close: status === 401 || status === 403
      ? closeReasonOf(Number(reply.headers.get(CLOSE_HEADER)), err)
      : undefined,
  };
}

/** What `Retry-After` says, in milliseconds; a date is not read. */
function pauseOf({ headers }: Answered): number | undefined {
  const seconds = headers.get("retry-after")?.trim() ?? "";
  return /^\d{1,9}$/.test(seconds) ? Math.min(Number(seconds), MAX_RETRY_S) * 1_000 : undefined;
}
