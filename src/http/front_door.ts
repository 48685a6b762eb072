/**
 * The HTTP front door: every request comes in here. It refuses what can be refused whatever is asked for, passes
 * handshakes to `handshake.ts`, sends straight to their call and the rest to the router, adds what browsers need to share
 * an answer with a page, and logs refusals. It must not know what a call does, nor who a user is.
 */
import type { Auth } from "../auth/auth.ts";
import { type Config, RUNTIME_HEADER_BYTES } from "../config/settings.ts";
import type { Log } from "../log/log.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { OpenFiles } from "../metrics/open_files.ts";
import { isLoopback } from "../net/addresses.ts";
import { hostGuard, originJudge } from "../net/origin.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import { type OwnHost, ownHostReader } from "../net/own_host.ts";
import { sendTarget } from "./api/send.ts";
import { explain, wantsExplanation } from "./explain.ts";
import { wantsStream } from "./event_stream.ts";
import { isPreflight, preflightAnswer, share, varyByOrigin } from "./cors.ts";
import { SOCKET_PATHS, upgrade, type UpgradeOptions, wantsUpgrade } from "./handshake.ts";
import { Problem, problem } from "./problem.ts";
import { RefusalLog } from "./refusal_log.ts";
import { REQUEST_ID_HEADER, type RequestId, RequestIds } from "./request_id.ts";
import type { Router } from "./router.ts";

export interface FrontDoorOptions {
  readonly router: Router;
  readonly upgrades: UpgradeOptions;
  readonly auth: Auth;
  readonly metrics: Metrics;
  readonly files: OpenFiles;
  readonly log: Log;
  readonly config: Pick<Config, "host" | "allowedOrigins" | "trustedProxies" | "maxHeaderBytes">;
}

/** Where clients ask: "/" has a page for those who come without an Upgrade. */
const QUESTION_PATH = "/ws";

/** Answered even when file descriptors are scarce: monitoring must see why nothing else is. */
const PROBES: ReadonlySet<string> = new Set(["/healthz", "/readyz", "/metrics"]);

/** Of a client that is let in: its own connection, and that of its subscription. */
const FILES_OF_SOCKET = 2;

export class FrontDoor {
  readonly #options: FrontDoorOptions;
  readonly #ownHostOf: ReturnType<typeof ownHostReader>;
  readonly #isOwnHost: ReturnType<typeof hostGuard>;
  readonly #judge: ReturnType<typeof originJudge>;
  readonly #refusals: RefusalLog;
  readonly #ids: RequestIds;

  constructor(options: FrontDoorOptions) {
    const { auth, log, config } = options;
    const { host, allowedOrigins, trustedProxies } = config;
    this.#options = options;
    this.#ownHostOf = ownHostReader(trustedProxies);
    this.#isOwnHost = auth.isOpen && isLoopback(host) ? hostGuard(host, allowedOrigins) : () => true;
    this.#judge = originJudge(allowedOrigins);
    this.#refusals = new RefusalLog(log, config);
    this.#ids = new RequestIds(auth, trustedProxies);
  }

  /** Answers one request. */
  handle(request: Request, info: ConnectionInfo): Response | Promise<Response> {
    const own = this.#ownHostOf(request, info);
    const target = sendTarget(request);
    const id = this.#ids.of(request, info);
    // No send is a handshake, and is spared the look at one header more: half a microsecond.
    if (target === undefined && wantsUpgrade(request)) {
      return this.#handshake(request, info.remoteAddr.hostname, own, id);
    }
    const startMs = this.#options.log.level === "debug" ? performance.now() : undefined;
    const isPlain = target !== undefined && startMs === undefined && !id.isGiven;
    const noted = (answer: Response) =>
      isPlain && !(answer instanceof Problem) ? answer : this.#note(request, info, answer, id, startMs);
    const refusal = this.#refuse(request, own);
    const origin = request.headers.get("origin");
    // Without a host nobody can say whose page it is.
    if (own === undefined) return noted(refusal!);
    const answer = origin !== null
      ? this.#answerPage(request, target, origin, own, info, { id, refused: refusal })
      : refusal ?? this.#answerCall(request, target, own, info, id);
    // No cache keeps the answer to a POST, so it need not say what it varies by.
    const isCacheable = origin === null && request.method !== "POST";
    const last = isCacheable ? (answer: Response) => (varyByOrigin(answer), noted(answer)) : noted;
    return answer instanceof Promise ? answer.then(last) : last(answer);
  }

  /** Names an answer, and logs it. @param startMs When the request came, where its answer is to be logged in any case. */
  #note(
    request: Request,
    info: ConnectionInfo,
    given: Response,
    id: RequestId,
    startMs: number | undefined,
  ): Response {
    const answer = named(given, id);
    // Who asks why its handshakes are refused has had them logged.
    if (answer instanceof Problem && !isQuestion(request)) {
      this.#refusals.note(request, info.remoteAddr.hostname, answer, false);
    }
    if (startMs !== undefined) logAnswer(this.#options.log, request, answer, id, startMs);
    return answer;
  }

  /** The refusal that does not depend on what is asked for; undefined when there is none. */
  #refuse(request: Request, own: OwnHost | undefined): Problem | undefined {
    const { files, config } = this.#options;
    if (files.areScarce && !PROBES.has(URL.parse(request.url)?.pathname ?? "")) {
      return problem("out_of_files", files.reason, { connection: "close" });
    }
    const tooLarge = refuseLargeHeaders(request, config.maxHeaderBytes);
    if (tooLarge) return tooLarge;
    if (own === undefined) {
      return problem(
        "invalid_request",
        "The Host header names no host: it must be a host, with a port or without, and nothing else",
      );
    }
    if (this.#isOwnHost(own)) return undefined;
    return problem(
      "misdirected",
      "In open mode on this machine only its own names are answered: call it localhost, or add the origin by " +
        "which you call it to USERWIRE_ALLOWED_ORIGINS",
    );
  }

  /** The refusal of a web page; undefined for a page that is allowed, and for a request from no page. */
  #refusePage(origin: string | null, own: OwnHost, what: "call" | "connect"): Problem | undefined {
    if (origin === null || this.#judge(origin, own) !== "refused") return undefined;
    return problem(
      "origin_not_allowed",
      `Pages of this origin may not ${what}: add it to USERWIRE_ALLOWED_ORIGINS. If it is the service's own, a proxy ` +
        `changes the Host header: let it pass on the one it got`,
    );
  }

  async #handshake(
    request: Request,
    peer: string,
    own: OwnHost | undefined,
    id: RequestId,
  ): Promise<Response> {
    const { files, upgrades } = this.#options;
    const given = this.#refuse(request, own) ??
      this.#refusePage(request.headers.get("origin"), own!, "connect") ??
      await files.opening(FILES_OF_SOCKET, () => upgrade(request, peer, upgrades));
    if (!(given instanceof Problem)) return given;
    const answer = named(given, id) as Problem;
    this.#options.metrics.onRefuse(answer.code);
    this.#refusals.note(request, peer, answer, true);
    return answer;
  }

  /** Answers a call from a web page. @param refused Whatever is asked for: pages on the list may read why. */
  async #answerPage(
    request: Request,
    target: string | undefined,
    origin: string,
    own: OwnHost,
    info: ConnectionInfo,
    { id, refused }: { id: RequestId; refused: Problem | undefined },
  ): Promise<Response> {
    const refusal = this.#refusePage(origin, own, "call");
    const isListed = refusal === undefined && this.#judge(origin, own) === "listed";
    const answer = isListed && isPreflight(request)
      ? preflightAnswer(request)
      : refused ?? refusal ?? await this.#answerCall(request, target, own, info, id);
    if (isListed) share(answer, origin);
    varyByOrigin(answer);
    return answer;
  }

  #answerCall(
    request: Request,
    target: string | undefined,
    own: OwnHost,
    info: ConnectionInfo,
    id: RequestId,
  ): Response | Promise<Response> {
    const { files, router, upgrades } = this.#options;
    if (target !== undefined) return router.send(request, target, id);
    if (isQuestion(request)) return explain(request, info.remoteAddr.hostname, upgrades);
    if (isSocketOnly(request)) {
      return problem(
        "upgrade_required",
        "Connect with a WebSocket client; a proxy in between must speak HTTP/1.1 and pass Upgrade and Connection on",
        { upgrade: "websocket" },
      );
    }
    const answer = () => router.answer(request, { own, info, requestId: id.text });
    return wantsStream(request) ? files.opening(FILES_OF_SOCKET, answer) : answer();
  }
}

/** The answer with the id of its request, which a problem says in its body too. */
function named(answer: Response, { text }: RequestId): Response {
  const said = answer instanceof Problem ? answer.of(text) : answer;
  said.headers.set(REQUEST_ID_HEADER, text);
  return said;
}

/** The words of a path. What else stands there may be a name, or a token that was taken for one. */
function shownPath(url: string): string {
  const segments = URL.parse(url)?.pathname.split("/") ?? [];
  return segments.map((text, at) =>
    (at === 3 || at === 5) || !/^(?:[a-z][a-z.-]{0,15}|v1|)$/.test(text) ? "*" : text
  )
    .join("/");
}

function logAnswer(log: Log, request: Request, { status }: Response, id: RequestId, startMs: number): void {
  log.debug("request answered", {
    request_id: id.text,
    method: request.method,
    path: shownPath(request.url),
    status,
    ms: Math.round((performance.now() - startMs) * 10) / 10,
  });
}

/** The refusal of a request whose headers have more bytes than this in all; undefined for smaller ones. */
function refuseLargeHeaders({ headers }: Request, maxBytes: number): Problem | undefined {
  // Reading every header costs 2 µs or more, beside the 30 of a send: not done where Deno refuses larger ones itself.
  if (maxBytes >= RUNTIME_HEADER_BYTES) return undefined;
  const bytes = headerBytes(headers);
  if (bytes <= maxBytes) return undefined;
  return problem(
    "headers_too_large",
    `The headers have ${bytes} bytes of at most ${maxBytes}: send fewer or shorter ones, or raise ` +
      "USERWIRE_MAX_HEADER_BYTES",
  );
}

/** The bytes of all headers as HTTP/1.1 writes them, a line each; values of the same name are one, joined by ", ". */
function headerBytes(headers: Headers): number {
  let bytes = 0;
  // A character is a byte here. Four more are the colon, the space and the end of the line.
  headers.forEach((value, name) => bytes += name.length + value.length + 4);
  return bytes;
}

/** Whether a client asks why its sockets don't open. */
function isQuestion(request: Request): boolean {
  return wantsExplanation(request) && new URL(request.url).pathname === QUESTION_PATH;
}

/**
 * Whether the request only makes sense as a handshake. "/" serves the console page too, but there a proxy that dropped
 * the Upgrade header leaves the key of the handshake behind.
 */
function isSocketOnly(request: Request): boolean {
  const { pathname } = new URL(request.url);
  return SOCKET_PATHS.has(pathname) && (pathname !== "/" || request.headers.has("sec-websocket-key"));
}
