/**
 * Whether the server of the connection for commands is just being asked if it is still who it was, and whether it has
 * stopped answering. A hung Redis looks connected.
 */

export const BEAT_MS = 1_000;
/** A beat without an answer for so long, nor anything else with one, is a bad sign. */
const SILENT_MS = 1_250;

/** Times are those of `performance.now()`, in milliseconds. */
export class ServerHeartbeat<Connection extends object> {
  /** The connection on which a beat is under way. */
  #beating: Connection | undefined;
  #beganMs = Infinity;
  /** Whether the next one comes early: what was found is expected to pass in a moment, or it is due already. */
  isSoon = false;

  /** A beat has no answer yet. */
  get isUnderWay(): boolean {
    return this.#beating !== undefined;
  }

  /**
   * A beat begins, unless one is under way on this connection.
   * @returns To be called when it has an answer, or can have none any more.
   */
  begin(connection: Connection): (() => void) | undefined {
    if (this.#beating === connection) {
      this.isSoon = true;
      return undefined;
    }
    this.#beating = connection;
    this.#beganMs = performance.now();
    this.isSoon = false;
    return () => {
      if (this.#beating !== connection) return;
      this.#beating = undefined;
      this.#beganMs = Infinity;
    };
  }

  /** @param answeredMs When anything was answered last. */
  isSilent(nowMs: number, answeredMs: number): boolean {
    return nowMs - Math.max(this.#beganMs, answeredMs) > SILENT_MS;
  }
}
