/** The stage of `deno task scale` with very many sockets, in one mode, on one Redis or on a cluster of three masters. */
import { slotOf } from "../src/redis/slots.ts";
import { until } from "../testkit/deadline.ts";
import { ClusterSet } from "../testkit/redis_cluster.ts";
import { RedisServer } from "../testkit/redis_server.ts";
import { usernameOf } from "./load/scenarios.ts";
import { LoadProcess } from "./load_process.ts";
import { memoryKib } from "./machine.ts";
import type { Program } from "./program.ts";
import { RedisWatch } from "./redis_watch.ts";
import type { Findings, Surroundings } from "./scale_stages.ts";
import { portOf, startUserwire } from "./systems.ts";

/** Many sockets in one mode. */
export interface Stage {
  readonly name: string;
  readonly subscriptions: "dedicated" | "shared";
  /** On a cluster messages are sent by HTTP: `PUBLISH` reaches nobody there. */
  readonly isOnCluster: boolean;
  /** Of the service. */
  readonly nodes: number;
  readonly sockets: number;
  /** To each socket. */
  readonly messages: number;
  /** Processes that the clients are spread over. */
  readonly generators: number;
  /** Addresses that they come from. */
  readonly sources: number;
}

/** Handshakes at one time, of all generators together. */
const AT_ONCE = 64;
/** Redis takes back the buffers of a quiet client after some seconds. */
const REST_MS = 5_000;
const READY_MS = 20_000;
const SUBSCRIBED_MS = 30_000;
const GONE_MS = 20_000;
/** Connections that Redis takes beyond those of the sockets. */
const SPARE_CLIENTS = 1_000;
/** Shared connections, and the one for commands. */
const FEW_CLIENTS = 8;

export async function stage(plan: Stage, { dir, own, findings }: Surroundings): Promise<void> {
  await using stack = new AsyncDisposableStack();
  own(stack);
  const maxClients = Math.max(12_000, plan.sockets + SPARE_CLIENTS);
  const args = ["--maxclients", String(maxClients)];
  const redis = stack.use(
    plan.isOnCluster ? await ClusterSet.start({ args }) : await RedisServer.start({ args }),
  );
  const redisPorts = portsOf(redis);
  const watch = stack.use(await RedisWatch.connect(...redisPorts));
  const services: Program[] = [];
  for (let i = 0; i < plan.nodes; i++) {
    services.push(stack.use(startUserwire({
      dir: await Deno.makeTempDir({ dir }),
      env: {
        PORT: "0",
        REDIS_URL: redis.url,
        USERWIRE_SUBSCRIPTIONS: plan.subscriptions,
        USERWIRE_MAX_CONNECTIONS: String(plan.sockets + 100),
      },
    })));
  }
  const ports = await Promise.all(services.map(portOf));
  await until(
    async () => (await Promise.all(ports.map(readiness))).every(({ ready }) => ready),
    "every node to be ready",
    READY_MS,
  );
  const loads = Array.from({ length: plan.generators }, () =>
    stack.use(LoadProcess.start({
      ports,
      by: plan.isOnCluster ? "http" : "publish",
      redisPort: redisPorts[0]!,
      bytes: 128,
      ...(plan.sources > 1 && { sources: sourcesOf(plan.sources) }),
    })));
  // Each connects to Redis to send; counted before the sockets come.
  await Promise.all(loads.map((load) => load.run("openUsers", { users: 0, atOnce: 1 })));
  await new Crowds({ plan, redis, watch, services, ports, loads, findings }).run();
}

interface Parts {
  readonly plan: Stage;
  readonly redis: RedisServer | ClusterSet;
  readonly watch: RedisWatch;
  readonly services: readonly Program[];
  /** Of the services. */
  readonly ports: readonly number[];
  readonly loads: readonly LoadProcess[];
  readonly findings: Findings;
}

/** What Redis has when nobody is there. */
interface Empty {
  /** Of each master. */
  readonly clients: readonly number[];
  readonly channels: number;
}

/** Everybody comes, gets the messages, and leaves. */
class Crowds {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async run(): Promise<void> {
    const { plan, watch } = this.#parts;
    const empty: Empty = { clients: await watch.clientsEach(), channels: await watch.channels() };
    const memory = await this.#memory();
    const open = await this.#open(empty);
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    const connections = await this.#countConnections(empty, open);
    await this.#weigh(memory, open);
    await this.#deliver();
    await this.#close(empty, open, plan.subscriptions === "shared" ? connections : 0);
    await this.#lookAfterwards();
  }

  /** @returns How many there are. */
  async #open(empty: Empty): Promise<number> {
    const { plan, watch, loads, findings } = this.#parts;
    const openMs = performance.now();
    const shares = sharesOf(plan.sockets, loads.length);
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
    findings.expect(
      open === plan.sockets,
      `${plan.name}: only ${open} of ${plan.sockets} sockets opened: ${whyNot}`,
    );
    await watch.untilChannels(empty.channels + open, SUBSCRIBED_MS);
    const openS = (performance.now() - openMs) / 1_000;
    findings.say(
      "connected",
      `${open} of ${plan.sockets} in ${openS.toFixed(1)} s: ${Math.round(open / openS)}/s`,
    );
    return open;
  }

  /** @returns How many they are. */
  async #countConnections(empty: Empty, open: number): Promise<number> {
    const { plan, redis, watch, findings } = this.#parts;
    const each = (await watch.clientsEach()).map((count, i) => count - empty.clients[i]!);
    const clients = sum(each);
    const isCountRight = plan.subscriptions === "dedicated" ? clients === open : clients <= FEW_CLIENTS;
    findings.say("Redis connections", `${clients} for subscriptions`);
    findings.expect(isCountRight, `${plan.name}: ${clients} Redis connections for ${open} sockets`);
    if (!(redis instanceof ClusterSet)) return clients;
    const kept = await usersOfMasters(redis, plan.sockets);
    findings.say("on each master", `${each.join(", ")}; users whose slots they keep: ${kept.join(", ")}`);
    findings.expect(
      open < plan.sockets || each.every((count, i) => count === kept[i]),
      `${plan.name}: ${each.join(", ")} connections for ${kept.join(", ")} users of the masters`,
    );
    return clients;
  }

  async #memory(): Promise<Record<"server" | "redis", number>> {
    const { services, watch } = this.#parts;
    return {
      server: memoryKib(services.map(({ pid }) => pid)),
      redis: await watch.info("memory", "used_memory") / 1_024,
    };
  }

  async #weigh(before: Record<"server" | "redis", number>, open: number): Promise<void> {
    const memory = await this.#memory();
    for (const [what, name] of [["server memory", "server"], ["Redis memory", "redis"]] as const) {
      const perSocket = (memory[name] - before[name]) / open;
      this.#parts.findings.say(
        what,
        `${perSocket.toFixed(1)} KiB per socket, ${(memory[name] / 1_024).toFixed(0)} MiB in all`,
      );
    }
  }

  async #deliver(): Promise<void> {
    const { plan, loads, findings } = this.#parts;
    const deliveries = await Promise.all(loads.map((load) => load.run("each", { messages: plan.messages })));
    const total = (name: keyof (typeof deliveries)[0]) => sum(deliveries.map((each) => each[name]));
    const sent = plan.messages * plan.sockets;
    const faults =
      (["lost", "duplicated", "disordered", "misdelivered", "unheard", "failed", "dropped"] as const)
        .filter((name) => total(name) > 0).map((name) => `${total(name)} ${name}`).join(", ") ||
      "nothing amiss";
    const text = `${total("delivered")} of ${sent}`;
    findings.say("delivered", `${text}: ${faults}`);
    findings.expect(
      total("delivered") === sent && faults === "nothing amiss",
      `${plan.name}: ${text} messages delivered, ${faults}`,
    );
  }

  /** @param staying Connections that are not of single sockets. */
  async #close(empty: Empty, open: number, staying: number): Promise<void> {
    const { plan, watch, loads, findings } = this.#parts;
    const closeMs = performance.now();
    const closed = await Promise.all(loads.map((load) => load.run("closeUsers", {})));
    const late = sum(closed.map(({ late }) => late));
    const look = async () => ({
      clients: await watch.clients() - sum(empty.clients),
      channels: await watch.channels() - empty.channels,
    });
    let left = await look();
    const isGone = () => left.clients <= staying && left.channels === 0;
    await until(
      async () => {
        left = await look();
        return isGone();
      },
      "every subscription to be gone",
      GONE_MS,
    ).catch(() => {});
    const closeS = (performance.now() - closeMs) / 1_000;
    const text = `left in Redis: ${left.clients} connections, ${left.channels} channels`;
    findings.say("closed", `${open - late} in ${closeS.toFixed(1)} s; ${text}`);
    findings.expect(late === 0, `${plan.name}: ${late} sockets were not let go in time`);
    findings.expect(isGone(), `${plan.name}: ${text}`);
  }

  async #lookAfterwards(): Promise<void> {
    const { plan: { name }, services, ports, findings } = this.#parts;
    for (const [i, service] of services.entries()) {
      findings.expect(!service.ended, `${name}: the service ended: ${service.tail.trim()}`);
      if (service.ended) continue;
      const { ready, why, connections } = await readiness(ports[i]!);
      findings.expect(ready, `${name}: not ready afterwards: ${why}`);
      findings.expect(connections === 0, `${name}: ${connections} sockets counted afterwards`);
    }
  }
}

async function readiness(port: number): Promise<{ ready: boolean; why?: string; connections: number }> {
  return await (await fetch(`http://127.0.0.1:${port}/readyz`)).json();
}

function portsOf(redis: RedisServer | ClusterSet): number[] {
  return redis instanceof ClusterSet ? redis.nodes.map(({ server }) => server.port) : [redis.port];
}

/** How many of the first users each master of a cluster keeps, by what the cluster itself says of its slots. */
async function usersOfMasters({ nodes }: ClusterSet, users: number): Promise<number[]> {
  const slots = await nodes[0]!.server.cli("CLUSTER", "SLOTS") as [
    number,
    number,
    [string, number, string],
  ][];
  const counts = new Map(nodes.map(({ id }) => [id, 0]));
  for (let user = 0; user < users; user++) {
    const slot = slotOf(usernameOf(user));
    const [, , [, , id]] = slots.find(([first, last]) => first <= slot && slot <= last)!;
    counts.set(id, counts.get(id)! + 1);
  }
  return [...counts.values()];
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

function sum(numbers: readonly number[]): number {
  return numbers.reduce((sum, number) => sum + number, 0);
}
