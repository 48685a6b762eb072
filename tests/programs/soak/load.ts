/** The load: devices that come and go, and a steady stream of messages to random users through random nodes. */
import { type DeviceOptions, type Leaving, runDevice, sleep } from "./device.ts";
import { ARRIVE_MS, type Ledger, type Send } from "./ledger.ts";
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
/** One in so many sends goes to a group, and one in so many to everybody. */
const GROUP_ONE_IN = 20;
const BROADCAST_ONE_IN = 200;
const GROUP_SIZE = 5;
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
  await putGroups(options);
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
    const target = targetOf(++message, Math.floor(random.next() * users), users);
    const sending = send({ url: random.pick(urls), message, ...target }, options.ledger).then((ms) => {
      unanswered.delete(sending);
      if (ms !== undefined) latenciesMs.push(ms);
    });
    unanswered.add(sending);
  }
  await Promise.all(unanswered);
  return latenciesMs.sort((one, other) => one - other);
}

type Target = Pick<Send, "to" | "users" | "kind"> & { readonly path: string };

/** A user, the users beside them, or everybody. */
function targetOf(message: number, nth: number, users: number): Target {
  const name = (i: number) => `user-${i}`;
  if (message % BROADCAST_ONE_IN === 0) {
    const all = Array.from({ length: users }, (_, i) => name(i));
    return { kind: "broadcast", to: "everybody", users: all, path: "v1/broadcast" };
  }
  if (message % GROUP_ONE_IN > 0) {
    return { kind: "user", to: name(nth), users: [name(nth)], path: `v1/users/${name(nth)}/messages` };
  }
  const group = Math.floor(nth / GROUP_SIZE);
  return {
    kind: "group",
    to: `team-${group}`,
    users: groupOf(group, users),
    path: `v1/groups/team-${group}/messages`,
  };
}

function groupOf(group: number, users: number): string[] {
  const first = group * GROUP_SIZE;
  return Array.from({ length: Math.min(GROUP_SIZE, users - first) }, (_, i) => `user-${first + i}`);
}

/** Makes the groups that messages are sent to. */
async function putGroups({ urls, users }: LoadOptions): Promise<void> {
  for (let group = 0; group * GROUP_SIZE < users; group++) {
    const response = await fetch(new URL(`v1/groups/team-${group}`, urls[0]), {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ users: groupOf(group, users) }),
    });
    if (!response.ok) throw new Error(`No group could be made: ${response.status} ${await response.text()}`);
    await response.body?.cancel();
  }
}

/** Resolves with how long it took; undefined when it failed, which the ledger then knows. */
async function send(
  { url, path, message, ...target }: Target & { url: string; message: number },
  ledger: Ledger,
): Promise<number | undefined> {
  const startMs = performance.now();
  try {
    const response = await fetch(new URL(path, url), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message, filler: "x".repeat(message % 300) }),
    });
    const text = await response.text();
    const endMs = performance.now();
    if (response.status !== 200 && response.status !== 202) throw new Error(`${response.status} ${text}`);
    const { sockets, online, users, unknown, failed } = JSON.parse(text);
    if (target.kind === "group" && (users + unknown !== target.users.length || failed !== undefined)) {
      throw new Error(`it has ${target.users.length} users, and was answered ${text}`);
    }
    ledger.sent({ message, ...target, startMs, endMs, sockets, online });
    return endMs - startMs;
  } catch (error) {
    ledger.violation(`Message ${message} to ${target.to} was not sent: ${(error as Error).message}`);
    return undefined;
  }
}
