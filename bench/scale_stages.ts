/** What `deno task scale` does and checks: very many sockets in one mode, and a Redis that has room for few. */
import { until } from "../testkit/deadline.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { LoadProcess } from "./load_process.ts";
import { memoryKib } from "./machine.ts";
import { RedisWatch } from "./redis_watch.ts";
import { portOf, startUserwire } from "./systems.ts";

/** Many sockets in one mode. */
export interface Stage {
  readonly subscriptions: "dedicated" | "shared";
  readonly sockets: number;
  /** To each socket. */
  readonly messages: number;
  /** Processes that the clients are spread over. */
  readonly generators: number;
  /** Addresses that they come from. */
  readonly sources: number;
}

interface Surroundings {
  readonly dir: string;
  readonly own: (started: AsyncDisposable) => void;
  readonly findings: Findings;
}

/** Prints what is found, and keeps what is wrong. */
export class Findings {
  readonly violations: string[] = [];

  /** A line of the report. */
  say(what: string, text: string): void {
    console.log(`  ${what.padEnd(20)}${text}`);
  }

  expect(isSo: boolean, claim: string): void {
    if (!isSo) this.violations.push(claim);
  }
}

/** Handshakes at one time, of all generators together. */
const AT_ONCE = 64;
/** Redis takes back the buffers of a quiet client after some seconds. */
const REST_MS = 5_000;
const SUBSCRIBED_MS = 30_000;
const GONE_MS = 20_000;
/** Connections that Redis takes beyond those of the sockets. */
const SPARE_CLIENTS = 1_000;
/** Shared connections, and the one for commands. */
const FEW_CLIENTS = 8;

export async function stage(plan: Stage, { dir, own, findings }: Surroundings): Promise<void> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  const { sockets, subscriptions } = plan;
  const maxClients = Math.max(12_000, sockets + SPARE_CLIENTS);
  const redis = stack.use(await RedisServer.start({ args: ["--maxclients", String(maxClients)] }));
  const watch = stack.use(await RedisWatch.connect(redis.port));
  const service = stack.use(startUserwire({
    dir: await Deno.makeTempDir({ dir }),
    env: {
      PORT: "0",
      REDIS_URL: redis.url,
      USERWIRE_SUBSCRIPTIONS: subscriptions,
      USERWIRE_MAX_CONNECTIONS: String(sockets + 100),
    },
  }));
  const port = await portOf(service);
  const loads = Array.from({ length: plan.generators }, () =>
    stack.use(LoadProcess.start({
      ports: [port],
      by: "publish",
      redisPort: redis.port,
      bytes: 128,
      ...(plan.sources > 1 && { sources: sourcesOf(plan.sources) }),
    })));
  // Each connects to Redis to send; counted before the sockets come.
  await Promise.all(loads.map((load) => load.run("openUsers", { users: 0, atOnce: 1 })));
  const before = { clients: await watch.clients(), channels: await watch.channels() };
  const memoryBefore = { server: memoryKib([service.pid]), redis: await redisKib(watch) };

  const openMs = performance.now();
  const shares = sharesOf(sockets, loads.length);
  const opened = await Promise.all(loads.map((load, i) =>
    load.run("openUsers", {
      users: shares[i]!.users,
      firstUser: shares[i]!.firstUser,
      atOnce: Math.ceil(AT_ONCE / loads.length),
    })
  ));
  const open = opened.reduce((sum, { opened }) => sum + opened, 0);
  const whyNot = opened.find(({ why }) => why !== undefined)?.why ??
    JSON.stringify(opened.map(({ refused }) => refused));
  findings.expect(open === sockets, `${subscriptions}: only ${open} of ${sockets} sockets opened: ${whyNot}`);
  await watch.untilChannels(before.channels + open, SUBSCRIBED_MS);
  const openS = (performance.now() - openMs) / 1_000;
  findings.say("connected", `${open} of ${sockets} in ${openS.toFixed(1)} s: ${Math.round(open / openS)}/s`);

  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  const clients = await watch.clients() - before.clients;
  const isCountRight = subscriptions === "dedicated" ? clients === open : clients <= FEW_CLIENTS;
  findings.say("Redis connections", `${clients} for subscriptions`);
  findings.expect(isCountRight, `${subscriptions}: ${clients} Redis connections for ${open} sockets`);
  const memory = { server: memoryKib([service.pid]), redis: await redisKib(watch) };
  for (const [what, name] of [["server memory", "server"], ["Redis memory", "redis"]] as const) {
    const perSocket = (memory[name] - memoryBefore[name]) / open;
    findings.say(
      what,
      `${perSocket.toFixed(1)} KiB per socket, ${(memory[name] / 1_024).toFixed(0)} MiB in all`,
    );
  }

  const deliveries = await Promise.all(loads.map((load) => load.run("each", { messages: plan.messages })));
  const sum = (name: keyof (typeof deliveries)[0]) => deliveries.reduce((sum, each) => sum + each[name], 0);
  const sent = plan.messages * sockets;
  const faults =
    (["lost", "duplicated", "disordered", "misdelivered", "unheard", "failed", "dropped"] as const)
      .filter((name) => sum(name) > 0).map((name) => `${sum(name)} ${name}`).join(", ") || "nothing amiss";
  findings.say("delivered", `${sum("delivered")} of ${sent}: ${faults}`);
  findings.expect(
    sum("delivered") === sent && faults === "nothing amiss",
    `${subscriptions}: ${sum("delivered")} of ${sent} messages delivered, ${faults}`,
  );

  const closeMs = performance.now();
  const closed = await Promise.all(loads.map((load) => load.run("closeUsers", {})));
  const late = closed.reduce((sum, { late }) => sum + late, 0);
  const isGone = async () =>
    await watch.clients() <= before.clients + (subscriptions === "shared" ? clients : 0) &&
    await watch.channels() === before.channels;
  await until(isGone, "every subscription to be gone", GONE_MS).catch(() => {});
  const left = {
    clients: await watch.clients() - before.clients,
    channels: await watch.channels() - before.channels,
  };
  const closeS = (performance.now() - closeMs) / 1_000;
  findings.say(
    "closed",
    `${open - late} in ${
      closeS.toFixed(1)
    } s; left in Redis: ${left.clients} connections, ${left.channels} channels`,
  );
  findings.expect(late === 0, `${subscriptions}: ${late} sockets were not let go in time`);
  findings.expect(
    await isGone(),
    `${subscriptions}: left in Redis: ${left.clients} connections, ${left.channels} channels`,
  );

  const readiness = await (await fetch(`http://127.0.0.1:${port}/readyz`)).json();
  findings.expect(readiness.ready === true, `${subscriptions}: not ready afterwards: ${readiness.why}`);
  findings.expect(
    readiness.connections === 0,
    `${subscriptions}: ${readiness.connections} sockets counted afterwards`,
  );
  findings.expect(!service.ended, `${subscriptions}: the service ended: ${service.tail.trim()}`);
}

const SMALL_MAX_CLIENTS = 300;
const TOO_MANY = 400;
const AGAIN = 50;
/** The service asks Redis every second how full it is. */
const ROOM_MS = 5_000;

/** A Redis with room for few: 503 for whoever comes too late, and commands go on. */
export async function refusals({ dir, own, findings }: Surroundings): Promise<void> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  console.log(`\nrefusals: ${TOO_MANY} sockets want in, and Redis takes ${SMALL_MAX_CLIENTS} connections`);
  const redis = stack.use(await RedisServer.start({ args: ["--maxclients", String(SMALL_MAX_CLIENTS)] }));
  const watch = stack.use(await RedisWatch.connect(redis.port));
  const service = stack.use(startUserwire({
    dir: await Deno.makeTempDir({ dir }),
    env: { PORT: "0", REDIS_URL: redis.url },
  }));
  const port = await portOf(service);
  const load = stack.use(
    LoadProcess.start({ ports: [port], by: "publish", redisPort: redis.port, bytes: 128 }),
  );

  const { opened, refused, broken } = await load.run("openUsers", { users: TOO_MANY, atOnce: AT_ONCE });
  findings.say("opened", `${opened}; refused: ${JSON.stringify(refused)}; broken: ${broken}`);
  findings.expect(
    opened > 0 && opened < SMALL_MAX_CLIENTS && refused[503] === TOO_MANY - opened && broken === 0,
    `refusals: of ${TOO_MANY} sockets ${opened} opened, refused were ${
      JSON.stringify(refused)
    }, not all others with 503`,
  );
  const rejected = await watch.info("stats", "rejected_connections");
  findings.say("rejected by Redis", String(rejected));
  findings.expect(rejected === 0, `refusals: Redis itself had to reject ${rejected} connections`);

  const url = `http://127.0.0.1:${port}`;
  const sent = await fetch(`${url}/v1/users/u0/messages`, { method: "POST", body: "hello" });
  const { sockets } = await sent.json();
  const ready = await fetch(`${url}/readyz`);
  await ready.body?.cancel();
  findings.say("commands", `a send reaches ${sockets} socket, /readyz answers ${ready.status}`);
  findings.expect(sent.status === 200 && sockets === 1, `refusals: a send was answered with ${sent.status}`);
  findings.expect(ready.status === 200, `refusals: /readyz answered ${ready.status}`);

  await load.run("closeUsers", {});
  let again = 0;
  await until(
    async () => {
      again +=
        (await load.run("openUsers", { users: AGAIN - again, firstUser: again, atOnce: AGAIN })).opened;
      return again === AGAIN;
    },
    "new sockets to be let in again",
    ROOM_MS,
  ).catch(() => {});
  findings.say("let in afterwards", `${again} of ${AGAIN}`);
  findings.expect(again === AGAIN, `refusals: only ${again} of ${AGAIN} new sockets were let in afterwards`);
}

/** Users of each generator, all different. */
function sharesOf(sockets: number, generators: number): { users: number; firstUser: number }[] {
  return Array.from({ length: generators }, (_, i) => {
    const firstUser = Math.floor(i * sockets / generators);
    return { firstUser, users: Math.floor((i + 1) * sockets / generators) - firstUser };
  });
}

function sourcesOf(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `127.0.0.${i + 1}`);
}

async function redisKib(watch: RedisWatch): Promise<number> {
  return await watch.info("memory", "used_memory") / 1_024;
}
