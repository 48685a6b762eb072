/**
 * Asks a socket to close so that its peer learns why. Left alone, Deno gets in the way: a close before `open` is
 * lost, and a frame that arrives after it makes Deno drop the socket together with our Close frame.
 *
 * Whether the peer answers is not its business: there may never be an answer.
 */
import { letGo } from "./frame_quota.ts";
import type { CloseReason } from "./protocol.ts";

/** Room for the reason in a Close frame (RFC 6455, 5.5). */
const MAX_REASON_BYTES = 123;
/** How long a peer must have sent nothing to count as quiet, and how often that is waited for. */
const QUIET_MS = 50;
const MAX_WAITS = 20;

const encoder = new TextEncoder();

/**
 * Closes the socket, as soon as it is open.
 * @param options.whenQuiet Hear its peer out first, for at most a second. For a peer whose frames are the reason:
 *   more of them are on their way. @default false
 */
export function hangUp(socket: WebSocket, reason: CloseReason, options: { whenQuiet?: boolean } = {}): void {
  const { code, why } = reason;
  const fits = encoder.encodeInto(why, new Uint8Array(MAX_REASON_BYTES)).read;
  const close = () => socket.close(code, why.slice(0, fits));
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = close;
  else if (options.whenQuiet) whenQuiet(socket, close);
  else close();
}

function whenQuiet(socket: WebSocket, close: () => void): void {
  let isQuiet = true;
  let waits = 0;
  socket.onmessage = ({ data }) => {
    isQuiet = false;
    letGo(data);
  };
  const timer = setInterval(() => {
    if (isQuiet || ++waits === MAX_WAITS) {
      clearInterval(timer);
      close();
    }
    isQuiet = true;
  }, QUIET_MS);
  socket.addEventListener("close", () => clearInterval(timer));
}
