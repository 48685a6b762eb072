/**
 * Run by `local_ports_test.ts` in a network namespace of its own, in which one address has few ports for outgoing
 * connections. Opens more sockets than that, with each way to Redis, and prints what became of them as JSON.
 */
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer } from "../../testkit/redis_server.ts";

/** How many sockets are tried. */
export const SOCKETS = 260;
/** First and last port that an address has, before and after. */
export const NARROW = [40_000, 40_199] as const;
const WIDE = [40_000, 40_999] as const;

/** What became of the sockets of one service. */
export interface Outcome {
  readonly open: number;
  readonly refused: number;
  /** What the others were told, each text once. */
  readonly told: string[];
  /** What the log says of Redis, each text once. */
  readonly logged: string[];
  /** Of those that were refused, how many were let in with more ports. */
  readonly later?: number;
}

async function setRange([first, last]: readonly [number, number]): Promise<void> {
  await Deno.writeTextFile("/proc/sys/net/ipv4/ip_local_port_range", `${first} ${last}`);
}

/** @param widen Whether those that were refused try again with more ports. */
async function outcomeWith(settings: Record<string, string>, widen = false): Promise<Outcome> {
  await setRange(NARROW);
  await using service = await ProcessService.start({ HOST: "0.0.0.0", USERWIRE_OPEN: "true", ...settings });
  await using stack = new AsyncDisposableStack();
  const { port } = new URL(service.url);
  const open = async (i: number) => {
    // Each address has its own ports: the clients must not be the ones that run out of them.
    const address = i % 2 === 0 ? "127.0.0.1" : "127.0.0.2";
    const socket = await RawSocket.open(`ws://${address}:${port}/ws?username=user${i}`);
    stack.use(socket);
    return socket.answer;
  };
  const refused: number[] = [];
  const told = new Set<string>();
  for (let i = 0; i < SOCKETS; i++) {
    const { status, body } = await open(i);
    if (status === 101) continue;
    refused.push(i);
    told.add(JSON.parse(body).detail);
  }
  const logged = new Set(
    service.records.filter(({ event }) => event === "subscription failed" || event === "redis unavailable")
      .map(({ reason }) => String(reason)),
  );
  let later: number | undefined;
  if (widen) {
    await setRange(WIDE);
    later = 0;
    for (const i of refused) if ((await open(i)).status === 101) later++;
  }
  return {
    open: SOCKETS - refused.length,
    refused: refused.length,
    told: [...told],
    logged: [...logged],
    ...(later !== undefined && { later }),
  };
}

if (import.meta.main) {
  await using tcp = await RedisServer.start();
  await using unix = await RedisServer.start({ unixSocket: true });
  console.log(JSON.stringify({
    dedicated: await outcomeWith({ REDIS_URL: tcp.url }, true),
    shared: await outcomeWith({ REDIS_URL: tcp.url, USERWIRE_SUBSCRIPTIONS: "shared" }),
    unix: await outcomeWith({ REDIS_URL: unix.url }),
  }));
}
