/** The load: devices that come and go, and a steady stream of messages to random users through random nodes. */
import { type DeviceOptions, type Leaving, runDevice, sleep } from "./device.ts";
import { ARRIVE_MS, type Ledger } from "./ledger.ts";
import { Random } from "./random.ts";

export interface LoadOptions {
  /** Base URLs of the nodes. */
  readonly urls: readonly string[];
  readonly users: number;
  /** Messages a second. */
  readonly rate: number;
  readonly seconds: number;
  readonly seed: number;
  readonly ledger: Ledger;
  /** Ends the load early. */
  readonly signal?: AbortSignal;
}

export interface LoadResult {
  readonly devices: number;
  readonly left: Readonly<Record<Leaving, number>>;
  /** How long sends took until they were answered, in milliseconds, in ascending order. */
  readonly latenciesMs: readonly number[];
}

/** Of each ten users this many have two devices, and as many three. */
const USERS_WITH_MORE = 1;
/** More unanswered sends than this mean that the service can't keep up with the rate. */
const MAX_UNANSWERED = 500;

/** Resolves when the time is over, all sends are answered, and every device has left. */
export async function runLoad(options: LoadOptions): Promise<LoadResult> {
  const { urls, users, seconds, seed, ledger, signal } = options;
  const stop = new AbortController();
  const left: Record<Leaving, number> = { close: 0, reset: 0, cut: 0, early: 0 };
  const devices: DeviceOptions[] = [];
  for (let i = 0; i < users; i++) {
    const count = i % 10 < USERS_WITH_MORE ? 3 : i % 10 < 2 * USERS_WITH_MORE ? 2 : 1;
    for (let nth = 0; nth < count; nth++) {
      const random = new Random(seed * 10_007 + devices.length);
      devices.push({ user: `user-${i}`, urls, random, ledger, left, stop: stop.signal });
    }
  }
  const running = devices.map((device) => runDevice(device));
  const latenciesMs = await sendSteadily(options, performance.now() + seconds * 1_000);
  // Whoever leaves sooner makes the last messages unsettled.
  await sleep(1.2 * (ARRIVE_MS + (latenciesMs.at(-1) ?? 0)), signal);
  stop.abort();
  await Promise.all(running);
  return { devices: devices.length, left, latenciesMs };
}

async function sendSteadily(options: LoadOptions, endMs: number): Promise<number[]> {
  const { urls, users, rate, seed, signal } = options;
  const random = new Random(seed);
  const unanswered = new Set<Promise<void>>();
  const latenciesMs: number[] = [];
  let message = 0;
  for (let dueMs = performance.now(); dueMs < endMs && !signal?.aborted; dueMs += 1_000 / rate) {
    const early = dueMs - performance.now();
    if (early > 0) await sleep(early, signal);
    if (unanswered.size >= MAX_UNANSWERED) await Promise.race(unanswered);
    const to = {
      url: random.pick(urls),
      user: `user-${Math.floor(random.next() * users)}`,
      message: ++message,
    };
    const sending = send(to, options.ledger).then((ms) => {
      unanswered.delete(sending);
      if (ms !== undefined) latenciesMs.push(ms);
    });
    unanswered.add(sending);
  }
  await Promise.all(unanswered);
  return latenciesMs.sort((one, other) => one - other);
}

/** Resolves with how long it took; undefined when it failed, which the ledger then knows. */
async function send(
  { url, user, message }: { url: string; user: string; message: number },
  ledger: Ledger,
): Promise<number | undefined> {
  const startMs = performance.now();
  try {
    const response = await fetch(new URL(`v1/users/${user}/messages`, url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message, filler: "x".repeat(message % 300) }),
    });
    const text = await response.text();
    const endMs = performance.now();
    if (response.status !== 200 && response.status !== 202) throw new Error(`${response.status} ${text}`);
    ledger.sent({ message, user, startMs, endMs, sockets: JSON.parse(text).sockets });
    return endMs - startMs;
  } catch (error) {
    ledger.violation(`Message ${message} to ${user} was not sent: ${(error as Error).message}`);
    return undefined;
  }
}
