/**
 * Run by `local_ports_test.ts` in a network namespace of its own, in which one address has few ports for outgoing
 * connections. Opens more sockets than that, with each way to Redis, and prints what became of them as JSON.
 */
import { OwnPort } from "../../testkit/own_port.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RawSocket } from "../../testkit/raw_socket.ts";
import { RedisServer } from "../../testkit/redis_server.ts";

/** How many sockets are tried. */
export const SOCKETS = 260;
/** How many ports an address has, before and after. */
export const PORTS = 200;
const MORE_PORTS = 1_000;
/** Where they begin; each service has others, because ports rest for a while after their use. */
const FIRST = { dedicated: 40_000, shared: 42_000, unix: 44_000, commands: 46_000 } as const;

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

async function setPorts(of: keyof typeof FIRST, count: number): Promise<void> {
  const first = FIRST[of];
  await Deno.writeTextFile("/proc/sys/net/ipv4/ip_local_port_range", `${first} ${first + count - 1}`);
}

async function outcomeOf(kind: "dedicated" | "shared" | "unix", redisUrl: string): Promise<Outcome> {
  await setPorts(kind, PORTS);
  const settings = {
    REDIS_URL: redisUrl,
    USERWIRE_SUBSCRIPTIONS: kind === "shared" ? "shared" : "dedicated",
  };
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
  if (refused.length > 0) {
    await setPorts(kind, MORE_PORTS);
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

/** What the log says when the node's own connection for commands finds no port. */
async function reasonAtStart(redis: RedisServer): Promise<string> {
  using port = OwnPort.take();
  await setPorts("commands", 20);
  const taken: Deno.Conn[] = [];
  try {
    for (let isFull = false; !isFull;) {
      await Deno.connect({ hostname: "127.0.0.1", port: redis.port })
        .then((connection) => taken.push(connection), () => isFull = true);
    }
    await using service = await ProcessService.start({ PORT: `${port}`, REDIS_URL: redis.url });
    const { reason } = await service.logged("redis unavailable");
    for (const connection of taken.splice(0)) connection.close();
    await setPorts("commands", PORTS);
    await service.logged("redis available");
    return String(reason);
  } finally {
    for (const connection of taken) connection.close();
  }
}

if (import.meta.main) {
  await using tcp = await RedisServer.start();
  await using unix = await RedisServer.start({ unixSocket: true });
  console.log(JSON.stringify({
    dedicated: await outcomeOf("dedicated", tcp.url),
    shared: await outcomeOf("shared", tcp.url),
    unix: await outcomeOf("unix", unix.url),
    atStart: await reasonAtStart(tcp),
  }));
}
