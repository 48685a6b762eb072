/** The thread behind `Beat`: sleeps and rings, until the cell says otherwise. */
/// <reference lib="deno.worker" />
import type { BeatOrder } from "./beat.ts";

self.onmessage = ({ data: { cell, everyMs } }: MessageEvent<BeatOrder>) => {
  while (Atomics.load(cell, 0) === 0) {
    Atomics.wait(cell, 0, 0, everyMs);
    self.postMessage(undefined);
  }
};
