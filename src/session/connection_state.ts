/** What a connection says of itself to who asks: read when asked, and not kept. */
import { formatPlace } from "../protocol/position.ts";
import type { ConnectionState } from "../publisher/connection_state.ts";
import type { BestEffort } from "./best_effort.ts";
import type { Replay } from "./replay.ts";
import type { Transport } from "./transport.ts";

/** Of every connection. */
export function stateOf(
  { mode, buffered }: Transport,
  { waitingBytes }: BestEffort,
): Pick<ConnectionState, "mode" | "transport" | "buffered"> {
  return {
    mode,
    transport: mode === "sse" ? "sse" : "websocket",
    buffered: buffered + waitingBytes,
  };
}

/** Of one that is open. @param openedMs When it was, on the clock of `performance.now()`. */
export function openState(
  openedMs: number,
  replay: Replay | undefined,
): Pick<ConnectionState, "since" | "position"> {
  return {
    since: new Date(Date.now() - (performance.now() - openedMs)).toISOString(),
    ...(replay && { position: formatPlace(replay.position) }),
  };
}
