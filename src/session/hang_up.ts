/**
 * Asks a socket to close so that its peer learns why. Left alone, Deno gets in the way: a close before `open` is
 * lost, and a frame that arrives after it makes Deno drop the socket together with our Close frame.
 *
 * Whether the peer answers is not its business: there may never be an answer.
 */
import { letGo } from "./inbound_quota.ts";
import type { CloseReason } from "../protocol/close_codes.ts";

/** Room for the reason in a Close frame (RFC 6455, 5.5). */
const MAX_REASON_BYTES = 123;
/** How long a peer must have sent nothing to count as quiet, and how often that is waited for. */
const QUIET_MS = 50;
const MAX_WAITS = 20;
/** What a peer may go on to send meanwhile: what was on its way. Then it is closed, whether it reads why or not. */
const MAX_FRAMES = 10_000;
const MAX_BYTES = 1_048_576;

const encoder = new TextEncoder();

/**
 * Closes the socket, as soon as it is open.
 * @param options.whenQuiet Hear its peer out first, for at most a second. For a peer whose frames are the reason:
 *   more of them are on their way. @default false
 * @param options.onFlood It went on to send more than can have been on its way.
 */
export function hangUp(
  socket: WebSocket,
  reason: CloseReason,
  options: { whenQuiet?: boolean; onFlood?: () => void } = {},
): void {
  const { code, why } = reason;
  const fits = encoder.encodeInto(why, new Uint8Array(MAX_REASON_BYTES)).read;
  const close = () => socket.close(code, why.slice(0, fits));
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = close;
  else if (options.whenQuiet) whenQuiet(socket, close, options.onFlood);
  else close();
}

function whenQuiet(socket: WebSocket, close: () => void, onFlood?: () => void): void {
  let isQuiet = true;
  let waits = 0;
  let frames = 0;
  let bytes = 0;
  const endMs = performance.now() + MAX_WAITS * QUIET_MS;
  // No timer runs while Deno hands over frame after frame, so a flood must end here. Deno drops a socket whose frames
  // come after `close()`: the next one cuts it.
  socket.onmessage = ({ data }) => {
    isQuiet = false;
    bytes += typeof data === "string" ? data.length : data.byteLength;
    letGo(data);
    if (++frames <= MAX_FRAMES && bytes <= MAX_BYTES && performance.now() <= endMs) return;
    onFlood?.();
    end();
  };
  const timer = setInterval(() => {
    if (isQuiet || ++waits === MAX_WAITS) end();
    isQuiet = true;
  }, QUIET_MS);
  const end = () => {
    clearInterval(timer);
    socket.onmessage = null;
    close();
  };
  socket.addEventListener("close", () => clearInterval(timer));
}
