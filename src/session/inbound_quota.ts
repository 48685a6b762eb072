/** What one client may send: how large a frame, and how many frames and bytes a second. Counts, never closes. */
import { Buffer } from "node:buffer";
import { CLOSE, type CloseReason } from "../protocol/close_codes.ts";

export interface InboundLimits {
  /** Largest inbound frame, in bytes. */
  maxFrameBytes: number;
  /** Inbound frames per second. */
  maxFramesPerSecond: number;
  /** Inbound bytes per second. */
  maxBytesPerSecond: number;
}

const SECOND_MS = 1_000;

export class InboundQuota {
  readonly #limits: InboundLimits;
  #frames = 0;
  #bytes = 0;
  #startMs = 0;

  constructor(limits: InboundLimits) {
    this.#limits = limits;
  }

  /** Why this frame is too much; undefined when it is not. */
  take(data: string | ArrayBuffer): CloseReason | undefined {
    const { maxFrameBytes, maxFramesPerSecond, maxBytesPerSecond } = this.#limits;
    const size = sizeOf(data, maxFrameBytes);
    if (size > maxFrameBytes) return CLOSE.tooBig;
    // By the clock: no timer runs while frames come without pause, nor in a process that is short of time, where what
    // an honest client sent in several seconds would be taken for one.
    const nowMs = performance.now();
    if (nowMs - this.#startMs >= SECOND_MS) {
      this.#startMs = nowMs;
      this.#frames = this.#bytes = 0;
    }
    if (++this.#frames > maxFramesPerSecond) return CLOSE.tooFast;
    return (this.#bytes += size) > maxBytesPerSecond ? CLOSE.tooMuch : undefined;
  }
}

/** Size of a frame in bytes; exact only where it decides. */
function sizeOf(data: string | ArrayBuffer, max: number): number {
  if (typeof data !== "string") return data.byteLength;
  // A UTF-16 unit takes one to three bytes.
  return data.length > max || data.length * 3 <= max ? data.length : Buffer.byteLength(data);
}
