/**
 * What sends to groups cost Redis, by its own account: the CPU time of its main thread for one send, and the longest script,
 * which is how long others wait at most. Groups of 10, 1,000 and 10,000 users; of each nobody is connected, and then the
 * first 1,000 are, each by one subscription. Then the same to a cluster of three masters; and sends to one user at a steady
 * rate, alone and while a group of 10,000 is sent to over and over.
 *
 *     deno task groups
 *
 * Two claims are checked, and the exit code is 1 when one does not hold: the CPU time is within its bound, and each of three
 * masters spends at most 0.45 of what one Redis spends. Times on the wall are shown beside them; they say something on a
 * machine that does nothing else.
 *
 * Settings, as environment variables: RATE (sends to one user a second, 200), SINGLES (how many, 1000).
 */
import { createHistogram } from "node:perf_hooks";
import { type Engine, openEngine } from "../src/engine/engine.ts";
import { Publisher } from "../src/publisher/publisher.ts";
import { ClusterSet } from "../testkit/redis_cluster.ts";
import { RedisServer } from "../testkit/redis_server.ts";

const RATE = Number(Deno.env.get("RATE") ?? 200);
const SINGLES = Number(Deno.env.get("SINGLES") ?? 1_000);
const MAX_CONNECTED = 1_000;
const PAYLOAD = { order: 7, text: "x".repeat(200) };
/** Milliseconds that one send may take of Redis, by the number of users; and how many sends are measured. */
const GROUPS = [
  { users: 10, boundMs: 1, sends: 100 },
  { users: 1_000, boundMs: 25, sends: 20 },
  { users: 10_000, boundMs: 200, sends: 5 },
] as const;
const MAX_SHARE = 0.45;

interface Sender extends AsyncDisposable {
  readonly publisher: Publisher;
  readonly engine: Engine;
}

async function openSender(redisUrl: string): Promise<Sender> {
  const engine = openEngine({ redisUrl, redisTimeoutMs: 30_000 });
  await engine.firstAttempt(10_000);
  const publisher = new Publisher(engine.broker, engine.history, {
    groups: engine.groups,
    maxGroupUsers: 100_000,
    maxFanoutBytes: Infinity,
  });
  return { engine, publisher, [Symbol.asyncDispose]: () => publisher.close().then(engine.close) };
}

function usersOf(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `user-${count}-${i}`);
}

/** Makes the groups, with users that were seen and have a message each. */
async function prepare({ publisher }: Sender): Promise<void> {
  for (const { users } of GROUPS) {
    const names = usersOf(users);
    await publisher.groups.put(`team-${users}`, names);
    await publisher.sendToAll(names, "seen");
  }
}

/** CPU seconds of the main thread, and the longest script since the last call in ms. */
async function spent(server: RedisServer): Promise<{ cpuMs: number; longestMs: number }> {
  const info = await server.info("cpu");
  const of = (what: string) =>
    Number(new RegExp(`^used_cpu_${what}_main_thread:([\\d.]+)`, "m").exec(info)?.[1]);
  const slow = await server.cli("SLOWLOG", "GET", "1000") as [number, number, number, ...unknown[]][];
  await server.cli("SLOWLOG", "RESET");
  return {
    cpuMs: 1_000 * (of("user") + of("sys")),
    longestMs: Math.max(0, ...slow.map(([, , us]) => us)) / 1_000,
  };
}

const IDLE_MS = 2_000;

async function measure(sender: Sender, servers: readonly RedisServer[], users: number, sends: number) {
  await sender.publisher.sendToGroup(`team-${users}`, PAYLOAD); // the streams are there after this
  // What it spends on itself, and a node of a cluster on the others, is no send's.
  const idle = await Promise.all(servers.map(spent));
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const before = await Promise.all(servers.map(spent));
  const idleOf = (i: number) => (before[i]!.cpuMs - idle[i]!.cpuMs) / IDLE_MS;
  const startMs = performance.now();
  for (let n = 0; n < sends; n++) await sender.publisher.sendToGroup(`team-${users}`, PAYLOAD);
  const wallMs = (performance.now() - startMs) / sends;
  const after = await Promise.all(servers.map(spent));
  return {
    wallMs,
    cpuMs: after.map(({ cpuMs }, i) => (cpuMs - before[i]!.cpuMs) / sends - idleOf(i) * wallMs),
    longestMs: Math.max(...after.map(({ longestMs }) => longestMs)),
  };
}

/** Subscribes one connection to channels, and reads what comes. */
async function subscribe(server: RedisServer, channels: readonly string[]): Promise<Deno.Conn> {
  const { hostname, port } = new URL(server.url);
  const connection = await Deno.connect({ hostname, port: Number(port) });
  const words = ["SUBSCRIBE", ...channels];
  const text = `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word}\r\n`).join("")}`;
  const writer = connection.writable.getWriter();
  await writer.write(new TextEncoder().encode(text));
  void connection.readable.pipeTo(new WritableStream()).catch(() => {});
  return connection;
}

/** Sends to one user at a steady rate, in ms: the median and the 99th percentile. */
async function singles({ publisher }: Sender): Promise<{ p50: number; p99: number }> {
  const histogram = createHistogram();
  const sends: Promise<void>[] = [];
  const startMs = performance.now();
  for (let n = 0; n < SINGLES; n++) {
    const dueMs = startMs + n * 1_000 / RATE;
    const waitMs = dueMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    sends.push(
      publisher.send("somebody", PAYLOAD).then(() =>
        histogram.record(Math.max(1, Math.round((performance.now() - dueMs) * 1_000)))
      ),
    );
  }
  await Promise.all(sends);
  return { p50: histogram.percentile(50) / 1_000, p99: histogram.percentile(99) / 1_000 };
}

function row(...cells: (string | number)[]): void {
  console.log(`| ${cells.map((cell) => typeof cell === "number" ? cell.toFixed(2) : cell).join(" | ")} |`);
}

const faults: string[] = [];
const alone = new Map<number, number>();
{
  await using redis = await RedisServer.start({
    args: ["--slowlog-log-slower-than", "300", "--slowlog-max-len", "1000"],
  });
  await using sender = await openSender(redis.url);
  await prepare(sender);
  row("users", "connected", "Redis CPU ms a send", "bound", "longest script ms", "wall ms");
  row("---", "---", "---", "---", "---", "---");
  const show = async (connected: (users: number) => number) => {
    for (const { users, boundMs, sends } of GROUPS) {
      const { cpuMs: [cpuMs], longestMs, wallMs } = await measure(sender, [redis], users, sends);
      row(String(users), String(connected(users)), cpuMs!, String(boundMs), longestMs, wallMs);
      if (connected(users) === 0) alone.set(users, cpuMs!);
      if (cpuMs! > boundMs) {
        faults.push(`${users} users took ${cpuMs!.toFixed(1)} ms of Redis: at most ${boundMs}`);
      }
    }
  };
  await show(() => 0);
  const sockets = [];
  for (const { users } of GROUPS) {
    sockets.push(await subscribe(redis, usersOf(users).slice(0, MAX_CONNECTED)));
  }
  const [last] = usersOf(10_000).slice(MAX_CONNECTED - 1);
  while ((await sender.publisher.count(last!)) === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  await show((users) => Math.min(users, MAX_CONNECTED));
  for (const socket of sockets) socket.close();

  await using other = await openSender(redis.url);
  await singles(other);
  const before = await singles(other);
  let isOver = false;
  const sending = (async () => {
    while (!isOver) await sender.publisher.sendToGroup("team-10000", PAYLOAD);
  })();
  const meanwhile = await singles(other);
  isOver = true;
  await sending;
  console.log();
  row("sends to one user", "p50 ms", "p99 ms");
  row("---", "---", "---");
  row("alone", before.p50, before.p99);
  row("while 10,000 are written", meanwhile.p50, meanwhile.p99);
}
{
  await using cluster = await ClusterSet.start();
  const masters = (await cluster.masters()).map(({ server }) => server);
  for (const master of masters) {
    await master.cli("CONFIG", "SET", "slowlog-log-slower-than", "300", "slowlog-max-len", "1000");
    // What is written to a disk costs CPU time as well, and the one Redis writes nothing.
    await master.cli("CONFIG", "SET", "appendonly", "no");
  }
  await using sender = await openSender(cluster.url);
  await prepare(sender);
  console.log();
  row(
    "users, cluster of three",
    "Redis CPU ms a send, each master",
    "largest share of one Redis",
    "longest script ms",
    "wall ms",
  );
  row("---", "---", "---", "---", "---");
  for (const { users, sends } of GROUPS.slice(1)) {
    const { cpuMs, longestMs, wallMs } = await measure(sender, masters, users, sends);
    const share = Math.max(...cpuMs) / alone.get(users)!;
    row(String(users), cpuMs.map((ms) => ms.toFixed(2)).join(", "), share, longestMs, wallMs);
    if (users === 10_000 && share > MAX_SHARE) {
      faults.push(`A master spent ${share.toFixed(2)} of what one Redis spends: at most ${MAX_SHARE}`);
    }
  }
}
for (const fault of faults) console.error(fault);
Deno.exit(faults.length > 0 ? 1 : 0);
