/**
 * What clients meet at the address that they know, through every balancer and proxy before the nodes: the service, the
 * upgrade, the subprotocol, a page's origin, a message from end to end, and how long silence is borne.
 */
import { BEARER_SUBPROTOCOL } from "../protocol/credentials.ts";
import { messageOf } from "../protocol/errors.ts";
import { SUBPROTOCOL } from "../protocol/frames.ts";
import { fault, type Finding, ok, warning } from "./finding.ts";

/** A service at an address, with what it is shown. The commands have one. */
export interface ServiceAt {
  readonly address: string;
  /** How long an answer may take, in milliseconds. */
  readonly patienceMs: number;
  socketUrl(username: string): URL;
  identity(username: string): { readonly user: string } | { readonly token: () => Promise<string> };
  send(to: { readonly user: string }, payload: { type: string; body: string }): Promise<unknown>;
  /** Why a socket was refused. */
  refusal(username: string): Promise<Error>;
}

export interface ThroughOptions {
  /** As whom to connect. */
  readonly user: string;
  /** Of the pages that will connect. @default that of the address */
  readonly origin?: string | undefined;
  /** How long to wait at most for what is sent into silence, in milliseconds; 0 leaves it out. */
  readonly idleMs: number;
}

/** What of the handshake is read, of the first frame. */
interface Hello {
  readonly t: string;
  readonly node?: string;
  readonly ping?: number;
}

export async function lookThroughUrl(service: ServiceAt, options: ThroughOptions): Promise<Finding[]> {
  const reached = await lookAtService(service);
  if (reached.some(({ state, check }) => state === "fault" && check === "service")) return reached;
  const { origin = new URL(service.address).origin, user } = options;
  const opened = await Line.open(service, user, origin);
  if (!(opened instanceof Line)) return [...reached, await explain(opened, service, user, origin)];
  using line = opened;
  const hello = await line.next(({ t }) => t === "hi", service.patienceMs);
  const found = [...reached, ok("upgrade", `a WebSocket opens, also for pages of ${origin}`)];
  if (line.protocol !== SUBPROTOCOL) {
    return [
      ...found,
      fault(
        "subprotocol",
        "the answer does not choose userwire.v1",
        "let the proxy pass Sec-WebSocket-Protocol on, both ways",
      ),
    ];
  }
  if (!hello) {
    return [
      ...found,
      fault(
        "subprotocol",
        "no first frame came",
        "see that the proxy does not buffer what comes from the node",
      ),
    ];
  }
  const pingMs = (hello.ping ?? 25) * 1_000;
  return [
    ...found,
    ok("subprotocol", `userwire.v1 is spoken by ${hello.node}`),
    await lookAtMessage(service, line, user),
    ...await lookAtIdle(line, pingMs, options.idleMs),
  ];
}

async function lookAtService({ address, patienceMs }: ServiceAt): Promise<Finding[]> {
  let answer: Record<string, unknown>;
  try {
    const response = await fetch(`${address}/readyz`, { signal: AbortSignal.timeout(patienceMs) });
    answer = await response.json();
  } catch (error) {
    const reason = error instanceof SyntaxError ? "what answers is not Userwire" : reasonOf(error);
    return [
      fault(
        "service",
        `${address}: ${reason}`,
        "see that the address is right, and that the balancer has a node",
      ),
    ];
  }
  if (typeof answer.ready !== "boolean") {
    return [
      fault(
        "service",
        `${address}: what answers is not Userwire`,
        "see that the address, and its path, are right",
      ),
    ];
  }
  const warnings = (Array.isArray(answer.warnings) ? answer.warnings : []).map((text) =>
    warning("service", String(text))
  );
  const state = answer.ready ? ok("service", `${answer.node ?? address} is ready`) : fault(
    "readiness",
    `the node is not ready: ${answer.why}`,
    "its log says more; a balancer should ask /readyz",
  );
  return [state, ...warnings];
}

/** Why there is no socket: without the origin it may open. */
async function explain(error: Error, service: ServiceAt, user: string, origin: string): Promise<Finding> {
  const again = await Line.open(service, user, undefined);
  if (again instanceof Line) {
    again[Symbol.dispose]();
    return fault(
      "origin",
      `pages of ${origin} may not connect`,
      "let the proxy pass on the Host header that it got, or add the origin to USERWIRE_ALLOWED_ORIGINS",
    );
  }
  const why = await service.refusal(user);
  const isPassed = /answered (?!426)\d/.test(why.message);
  return fault(
    "upgrade",
    `no WebSocket opens: ${why.message || error.message}`,
    isPassed ? undefined : "let the proxy speak HTTP/1.1 to the nodes, and pass Upgrade and Connection on",
  );
}

async function lookAtMessage(service: ServiceAt, line: Line, user: string): Promise<Finding> {
  const text = crypto.randomUUID();
  const startMs = performance.now();
  try {
    await service.send({ user }, { type: "text/plain", body: text });
  } catch (error) {
    return warning("message", `none was tried: ${messageOf(error)}`, "give a key of scope send with --key");
  }
  const message = await line.next((frame) => JSON.stringify(frame).includes(text), service.patienceMs);
  return message ? ok("message", `from end to end in ${Math.round(performance.now() - startMs)} ms`) : fault(
    "message",
    "what was sent did not come",
    "see that all nodes behind the balancer use the same Redis",
  );
}

/** Whether a socket without traffic lives until the service says something into the silence. */
async function lookAtIdle(line: Line, pingMs: number, idleMs: number): Promise<Finding[]> {
  if (idleMs === 0) return [];
  const startMs = performance.now();
  const frame = await line.next(({ t }) => t === "p", idleMs);
  const seconds = Math.round((performance.now() - startMs) / 1_000);
  if (frame) {
    return [ok("idle", `a socket lives through ${seconds} s of silence, until the service says something`)];
  }
  if (line.isClosed) {
    return [fault(
      "idle",
      `the socket was cut after ${seconds} s of silence, sooner than the service says something (${
        pingMs / 1_000
      } s)`,
      "raise the idle timeout of the proxy above that, or lower USERWIRE_PING_S",
    )];
  }
  return [warning(
    "idle",
    `nothing came within ${seconds} s; the service says something after ${pingMs / 1_000} s`,
    "wait longer with --idle, or see whether the proxy buffers",
  )];
}

/** A socket that is listened to. */
class Line implements Disposable {
  readonly #socket: WebSocket;
  readonly #frames: Hello[] = [];
  #wake = () => {};

  /** @returns The socket; or why there is none. */
  static async open(service: ServiceAt, user: string, origin: string | undefined): Promise<Line | Error> {
    const identity = service.identity(user);
    const protocols: string[] = [SUBPROTOCOL];
    try {
      if ("token" in identity) {
        const token = new TextEncoder().encode(await identity.token());
        protocols.push(BEARER_SUBPROTOCOL + token.toBase64({ alphabet: "base64url", omitPadding: true }));
      }
    } catch (error) {
      return error instanceof Error ? error : new Error(messageOf(error));
    }
    const url = service.socketUrl(user);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, { protocols, headers: origin === undefined ? {} : { origin } });
    const line = new Line(socket);
    const opened = Promise.withResolvers<Line | Error>();
    socket.onopen = () => opened.resolve(line);
    socket.onerror = (event) =>
      opened.resolve(new Error(event instanceof ErrorEvent ? event.message : "it broke"));
    const timer = setTimeout(
      () => opened.resolve(new Error("no answer to the handshake")),
      service.patienceMs,
    );
    const result = await opened.promise;
    clearTimeout(timer);
    if (!(result instanceof Line)) line[Symbol.dispose]();
    return result;
  }

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      try {
        this.#frames.push(JSON.parse(String(data)));
      } catch {
        // Nothing of ours.
      }
      this.#wake();
    };
    socket.onclose = () => this.#wake();
  }

  get protocol(): string {
    return this.#socket.protocol;
  }

  get isClosed(): boolean {
    return this.#socket.readyState >= WebSocket.CLOSING;
  }

  /** The next frame that is meant, if one comes in time and before the end. */
  async next(isMeant: (frame: Hello) => boolean, withinMs: number): Promise<Hello | undefined> {
    const over = Promise.withResolvers<undefined>();
    const timer = setTimeout(() => over.resolve(undefined), withinMs);
    let isOver = false;
    void over.promise.then(() => isOver = true);
    try {
      for (;;) {
        for (let frame = this.#frames.shift(); frame !== undefined; frame = this.#frames.shift()) {
          if (isMeant(frame)) return frame;
        }
        if (isOver || this.isClosed) return undefined;
        const woken = Promise.withResolvers<void>();
        this.#wake = woken.resolve;
        await Promise.race([woken.promise, over.promise]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  [Symbol.dispose](): void {
    try {
      this.#socket.close();
    } catch {
      // It never opened.
    }
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof DOMException && error.name === "TimeoutError") return "no answer in time";
  const said = messageOf(error instanceof Error && error.cause !== undefined ? error.cause : error);
  return said.replace(/^.*client error \(\w+\): /, "").replace(/ \(os error \d+\)$/, "");
}
