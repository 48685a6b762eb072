/**
 * Where clients connect: one port, with one certificate or none. Deno stops listening for good when it can't take one
 * connection, for want of a file descriptor, so a listener can listen anew. A new certificate needs a second listener,
 * which takes the same port while the first one's sockets are sent away. Knows nothing of what requests ask for.
 */
import type { Config } from "../config/settings.ts";
import type { Pem } from "../config/pem.ts";
import type { ConnectionInfo } from "../net/connection_info.ts";
import { wantsStream } from "../http/event_stream.ts";
import { wantsUpgrade } from "../http/handshake.ts";
import { problem } from "../http/problem.ts";
import type { Log } from "../log/log.ts";
import { freePort, listenFault } from "../net/listening.ts";
import { ConfigError, messageOf } from "../protocol/errors.ts";

/**
 * Pause before it listens anew, doubled with each failure up to the longest; a listener that lasted longer than that
 * begins with the shortest again.
 */
const MIN_PAUSE_MS = 100;
const MAX_PAUSE_MS = 1_000;
/** A want of file descriptors passes; other faults are tried for this long. */
const GIVE_UP_MS = 30_000;

export interface ListenerOptions {
  readonly host: Config["host"];
  /** 0 takes a free one. */
  readonly port: Config["port"];
  readonly tls: Pem | undefined;
  /** Whether another listener of this process has the port already, and its place is taken. */
  readonly replaces?: boolean;
  /** Whether other processes listen there too, and somebody has seen that nobody else does. */
  readonly sharesPort?: boolean | undefined;
  /** Ends it at once, with every connection. */
  readonly signal?: AbortSignal;
  handler(request: Request, info: ConnectionInfo): Response | Promise<Response>;
  /** It has stopped listening, and was not asked to. */
  onStop(listener: Listener, error: unknown): void;
}

export class Listener {
  readonly tls: Pem | undefined;
  readonly port: number;
  readonly #options: ListenerOptions;
  #server: Deno.HttpServer<Deno.NetAddr>;
  #startMs = 0;
  /** The last pause before it listened. */
  #pauseMs = 0;
  #isRetired = false;
  #isEnding = false;

  /** @throws {ConfigError} when the address can't be listened on. */
  constructor(options: ListenerOptions) {
    const { host, port, tls, replaces, sharesPort } = options;
    const address = { host, port, names: { host: "HOST", port: "PORT" } };
    this.tls = tls;
    this.#options = options;
    try {
      // A certificate is replaced by a second listener on the same port, which the first must have allowed. So it allows
      // strangers too.
      if (tls?.cert !== undefined && !replaces && !sharesPort && port !== 0) freePort(address);
      this.#server = this.#serve(port);
    } catch (error) {
      if (error instanceof ConfigError) throw error;
      throw new ConfigError([listenFault(error, address)]);
    }
    this.port = this.#server.addr.port;
  }

  /** Resolves when it has ended. */
  get finished(): Promise<void> {
    return this.#server.finished;
  }

  /** Another takes its place: handshakes are sent there, and it listens anew no more. */
  retire(): void {
    this.#isRetired = true;
  }

  /** The service is ending: it listens anew no more. */
  end(): void {
    this.#isEnding = true;
  }

  /**
   * Retire or end it first. Waits for requests in flight, but also for stuck readers and for ever for a client that left
   * during its handshake: so give it a moment, no more. It can't be cut short: Deno throws when a shutdown is aborted.
   */
  shutdown(): Promise<void> {
    return this.#server.shutdown();
  }

  /**
   * Listens anew as soon as that is possible, unless it is retired or ended before.
   * @param error Why it does not listen any more.
   * @returns False when it has given up.
   */
  async recover(error: unknown, { log, url }: { log: Log; url: string }): Promise<boolean> {
    if (this.#isOver) return true;
    log.error("not listening any more: listens anew as soon as it can", { reason: messageOf(error) });
    const sinceMs = performance.now();
    const wasStable = sinceMs - this.#startMs > MAX_PAUSE_MS;
    this.#pauseMs = wasStable ? MIN_PAUSE_MS : nextPause(this.#pauseMs);
    while (true) {
      await new Promise((resolve) => setTimeout(resolve, this.#pauseMs));
      if (this.#isOver) return true;
      try {
        this.#server = this.#serve(this.port);
        log.info("listening again", { url, after_ms: Math.round(performance.now() - sinceMs) });
        return true;
      } catch (error) {
        const isPassing = error instanceof Error && /os error (23|24)\b/.test(error.message);
        if (!isPassing && performance.now() - sinceMs > GIVE_UP_MS) {
          log.error("can't listen: gives up", { reason: messageOf(error) });
          return false;
        }
        this.#pauseMs = nextPause(this.#pauseMs);
      }
    }
  }

  get #isOver(): boolean {
    return this.#isRetired || this.#isEnding;
  }

  #serve(port: number): Deno.HttpServer<Deno.NetAddr> {
    const { host, tls, sharesPort, signal, handler, onStop } = this.#options;
    const secure = tls?.cert !== undefined && { cert: tls.cert, key: tls.key! };
    const server = Deno.serve(
      {
        hostname: host,
        port,
        reusePort: secure !== false || sharesPort === true,
        ...(signal && { signal }),
        onListen() {},
        ...secure,
      },
      (request, info) => {
        if (this.#isRetired && (wantsUpgrade(request) || wantsStream(request))) {
          return problem("draining", "The certificate is being replaced: connect again");
        }
        return handler(request, info);
      },
    );
    this.#startMs = performance.now();
    const stopped = (error: unknown) => {
      if (!this.#isOver && !signal?.aborted) onStop(this, error);
    };
    server.finished.then(() => stopped("it has ended"), stopped);
    return server;
  }
}

function nextPause(ms: number): number {
  return Math.min(MAX_PAUSE_MS, Math.max(MIN_PAUSE_MS, ms * 2));
}
