/** A call that is made until it is accepted. */
import { pause, type World } from "./world.ts";

/** It waits before it tries again, twice as long each time. */
const RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;

export interface Insistence {
  /** Number of the send: its payload and its idempotency key, and which node is asked. */
  readonly n: number;
  readonly path: string;
  readonly timeoutMs: number;
  isGivenUp(): boolean;
  onRetry(): void;
  /** It was answered something else than 2xx and 503. @default a violation */
  onRefused?(status: number, detail: string): Promise<void>;
}

export interface Taken {
  // deno-lint-ignore no-explicit-any -- whoever asks knows
  readonly answer: any;
  /** When it was tried first, when the try began that was answered, and when that was. */
  readonly triedMs: number;
  readonly sentMs: number;
  readonly answeredMs: number;
  readonly tries: number;
}

/** @returns Undefined when it was given up. */
export async function insist(world: World, call: Insistence): Promise<Taken | undefined> {
  const { nodes, ledger } = world;
  const { n, path, timeoutMs } = call;
  const triedMs = performance.now();
  let waitMs = RETRY_MS;
  for (let tries = 1; !call.isGivenUp(); tries++, waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
    const node = nodes[n % Math.max(1, nodes.length)];
    const sentMs = performance.now();
    try {
      const response = await fetch(new URL(path, node?.url), {
        method: "POST",
        body: String(n),
        headers: { "content-type": "application/json", "idempotency-key": `send-${n}` },
        signal: AbortSignal.timeout(timeoutMs),
      });
      const answeredMs = performance.now();
      const answer = await response.json();
      if (response.ok) return { answer, triedMs, sentMs, answeredMs, tries };
      if (response.status !== 503) {
        if (call.onRefused) await call.onRefused(response.status, answer.detail);
        else ledger.violate(`A send was answered ${response.status}: ${answer.detail}`);
      }
    } catch {
      // The node is gone, or was killed while it answered.
    }
    call.onRetry();
    await pause(waitMs * (0.5 + Math.random()));
  }
  return undefined;
}
