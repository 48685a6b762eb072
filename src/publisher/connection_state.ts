/** What a connection says of itself to who asks, from node to node. */
import type { Mode } from "../metrics/metrics.ts";

export interface ConnectionState {
  /** Its id. */
  readonly conn: string;
  /** Name of the node that holds it. */
  readonly node: string;
  /** Since when it has been open, as ISO 8601 writes it; missing while it is being opened. */
  readonly since?: string;
  /** What it is, as metrics and logs call it. */
  readonly mode: Mode;
  readonly transport: "websocket" | "sse";
  /** Bytes on the node that the client has not taken, about. */
  readonly buffered: number;
  /** How far it has come in the user's history, as `hi.pos`; missing where it has no place there. */
  readonly position?: string;
  /** When its token ends, in Unix seconds; missing without an end. */
  readonly exp?: number;
}
