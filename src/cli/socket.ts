/**
 * One WebSocket to a running service, from the handshake to its end, as a promise. It notices a server that
 * went silent, and it never waits for a peer that does not answer. Whether to connect again is the caller's
 * business.
 */
import { InvalidFrameError } from "../protocol/errors.ts";
import {
  type ByeFrame,
  formatFrame,
  parseServerFrame,
  type ServerFrame,
  SUBPROTOCOL,
} from "../protocol/frames.ts";

/** How a connection ended. */
export interface Ending {
  /** The close code; 0 when the connection broke, or never came about. */
  readonly code: number;
  readonly why: string;
  /** How long it was open, in milliseconds; undefined when it never was. */
  readonly openMs: number | undefined;
  /** When the server wants to see the client again, in milliseconds. */
  readonly retryMs: number | undefined;
  /** It was given up because the server never said `hi`. */
  readonly isUnanswered: boolean;
}

/** How long the server has to answer the Close frame, in milliseconds. */
const CLOSE_TIMEOUT_MS = 1_000;

/**
 * Connects, reports each known frame with its text, and resolves when the connection has ended.
 * @param options.stop Ends the connection with code 1000.
 * @param options.patienceMs How long the server may be silent before its `hi`, in milliseconds; after that `hi` says it.
 * @throws {InvalidFrameError} when the peer does not speak `userwire.v1`; also whatever `onFrame` throws.
 */
export function connect(
  { url, protocols }: { url: string; protocols: string[] },
  options: { stop: AbortSignal; patienceMs: number; onFrame: (frame: ServerFrame, text: string) => void },
): Promise<Ending> {
  const { stop, patienceMs, onFrame } = options;
  const { promise, resolve, reject } = Promise.withResolvers<Ending>();
  const socket = new WebSocket(url, protocols);
  let openedAt: number | undefined;
  let bye: ByeFrame | undefined;
  let trouble = "";
  let silenceMs = patienceMs;
  let isGreeted = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const end = (code: number, why: string, isUnanswered = false) => {
    release();
    const openMs = openedAt === undefined ? undefined : performance.now() - openedAt;
    resolve({ code, why, openMs, retryMs: bye?.retry_ms, isUnanswered });
  };
  const fail = (error: unknown) => {
    release();
    socket.close();
    reject(error);
  };
  const release = () => {
    clearTimeout(timer);
    stop.removeEventListener("abort", onStop);
    socket.onopen = socket.onmessage = socket.onclose = null;
  };
  const onStop = () => {
    socket.onmessage = null;
    clearTimeout(timer);
    timer = setTimeout(end, CLOSE_TIMEOUT_MS, 1000, "");
    socket.close(1000);
  };
  const watchForSilence = () => {
    clearTimeout(timer);
    if (silenceMs > 0) {
      timer = setTimeout(() => {
        socket.close();
        const seconds = silenceMs / 1000;
        if (isGreeted) end(0, `the service was silent for ${seconds} s`);
        else end(0, `no answer in ${seconds} s`, true);
      }, silenceMs);
    }
  };

  socket.onopen = () => {
    openedAt = performance.now();
    if (socket.protocol !== SUBPROTOCOL) {
      fail(new InvalidFrameError(`${whereOf(url)} does not speak ${SUBPROTOCOL}`));
    }
  };
  socket.onmessage = ({ data }) => {
    try {
      if (typeof data !== "string") {
        throw new InvalidFrameError(`${whereOf(url)} sent bytes, which ${SUBPROTOCOL} never does`);
      }
      const frame = parseServerFrame(data);
      // The server promises a sign of life after each `ping` seconds of silence; two may get lost on the way.
      if (frame?.t === "hi") {
        isGreeted = true;
        silenceMs = frame.ping * 3_000;
      }
      if (frame?.t === "bye") bye = frame;
      watchForSilence();
      if (frame !== undefined) onFrame(frame, data);
      // Its sender waits to hear that it has arrived.
      if (frame?.t === "m" && frame.ack === 1 && frame.seq !== undefined) {
        socket.send(formatFrame({ t: "ack", seq: frame.seq }));
      }
    } catch (error) {
      fail(error);
    }
  };
  socket.onerror = (event) => {
    if (event instanceof ErrorEvent) trouble = event.message;
  };
  socket.onclose = ({ code, reason }) => end(code, bye?.why || reason || trouble);
  stop.addEventListener("abort", onStop);
  watchForSilence();
  return promise;
}

/** The address without what may be a ticket. */
function whereOf(url: string): string {
  return url.replace(/\?.*$/, "");
}
