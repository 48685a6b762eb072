/**
 * The data in Redis is set back, in every way in which numbers can be given out a second time: each framed client,
 * whether it returns or stays connected, is told of it, and gets everything that is accepted afterwards, once. What
 * keeps all data, or loses none that anybody was told of, is told to nobody.
 */
import { assert, assertEquals } from "@std/assert";
import { connect } from "../../src/client/mod.ts";
import { Inbox } from "../../testkit/client_watch.ts";
import { LOOK } from "../../src/history/timeline_script.ts";
import { PLAIN } from "../../src/redis/pubsub_words.ts";
import { until } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { numbers } from "../../testkit/nodes.ts";
import { RedisServer, type RedisServerOptions, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const WAIT_MS = 30_000;
const USERS = ["tagless", "tagged", "sdk", "connected"] as const;
const LAST_KEY = "userwire:{userwire:timeline}:last";

/** Two servers of which the second copies the first, the way to one of them, and a node. */
interface Stage {
  readonly redis: RedisServer;
  readonly other: RedisServer;
  readonly way: TcpProxy;
  service: Service;
  /** Sends each user the numbers from `first` to `last`. */
  send(first: number, last: number, through?: Service): Promise<void>;
  start(): Promise<Service>;
}

interface Scenario {
  readonly server?: RedisServerOptions;
  /** Whether the second server is there. @default false */
  readonly pair?: boolean;
  /** How many messages there are when `begin` is called. @default 5 */
  readonly before?: number;
  /** Called where what is set back is set back to. */
  begin?(stage: Stage): Promise<void>;
  /** Sends what is lost, or is not. @default five messages */
  between?(stage: Stage): Promise<void>;
  happens(stage: Stage): Promise<void>;
}

/** Resolves when a replica has all that its master has. */
async function inStep(master: RedisServer, replica: RedisServer): Promise<void> {
  await replica.copied();
  const offset = async (redis: RedisServer, field: string) =>
    new RegExp(`^${field}:(\\d+)`, "m").exec(await redis.info("replication"))?.[1];
  await until(
    async () => await offset(master, "master_repl_offset") === await offset(replica, "slave_repl_offset"),
    "the replica to be in step",
    WAIT_MS,
  );
}

/** Ends the connections of clients; those of replicas stay. */
async function killClients(redis: RedisServer): Promise<void> {
  for (const type of ["normal", "pubsub"]) {
    await redis.cli("CLIENT", "KILL", "TYPE", type, "SKIPME", "yes");
  }
}

/** Resolves when so many nodes have looked at the timeline from now on. */
async function haveLooked(redis: RedisServer, nodes: number): Promise<void> {
  for (const [setting, value] of [["max-len", 10_000], ["log-slower-than", 0]] as const) {
    await redis.cli("CONFIG", "SET", `slowlog-${setting}`, value);
  }
  await redis.cli("SLOWLOG", "RESET");
  await until(
    async () => {
      const log = await redis.cli("SLOWLOG", "GET", -1) as [
        id: number,
        atS: number,
        us: number,
        string[],
        string,
      ][];
      const looks = Map.groupBy(
        log.filter(([, , , [command, sha]]) => command === "EVALSHA" && sha === LOOK.in(PLAIN).sha),
        ([, , , , client]) => client,
      );
      // With the second look a node has taken in what it saw at the first.
      return looks.values().filter(({ length }) => length >= 2).toArray().length >= nodes;
    },
    "all to have looked",
    WAIT_MS,
  );
}

async function play(scenario: Scenario, isLost: boolean): Promise<void> {
  await using redis = await RedisServer.start(scenario.server);
  await using other = await RedisServer.start({
    ...scenario.server,
    ...(scenario.pair && { replicaOf: redis }),
  });
  await using way = await TcpProxy.start(redis.port);
  await using stack = new AsyncDisposableStack();
  const start = async () => stack.use(await Service.start({ REDIS_URL: way.through(redis.url) }));
  const stage: Stage = {
    redis,
    other,
    way,
    service: await start(),
    start,
    async send(first, last, through = stage.service) {
      for (const n of numbers(first, last)) {
        for (const user of USERS) {
          await until(
            async () => [200, 202].includes((await through.send(user, n)).status),
            `message ${n} to be accepted`,
            WAIT_MS,
          );
        }
      }
    },
  };
  const url = (user: string) => stage.service.socketUrl(user);
  const followers = new Map<string, Follower>();
  for (const user of ["tagless", "tagged", "connected"]) {
    const follower = stack.use(await Follower.open(url(user)));
    follower.usesTags = user === "tagged";
    followers.set(user, follower);
  }
  // At the end the connected one follows the service wherever it is.
  followers.get("connected")!.follow(() => url("connected"));
  const dial = (resume?: string) => connect(stage.service.socketUrl(), { user: "sdk", resume });
  const first = dial();
  stack.defer(async () => void await first.close());
  const firstInbox = new Inbox(first);
  await firstInbox.state("open");

  const before = scenario.before ?? 5;
  await stage.send(1, before);
  await scenario.begin?.(stage);
  const count = scenario.between ? undefined : 5;
  if (scenario.between) await scenario.between(stage);
  else await stage.send(before + 1, before + 5);
  const had = before + (count ?? (before === 0 ? 0 : 5));
  await Promise.all([...followers.values()].map((follower) => follower.reaches(had)));
  await firstInbox.received(had);
  for (const user of ["tagless", "tagged"]) await followers.get(user)!.disconnect();
  const position = first.position;
  await first.close();

  await scenario.happens(stage);
  await stage.send(101, 107);
  for (const user of ["tagless", "tagged"]) await followers.get(user)!.returnsTo(url(user));
  const second = dial(position);
  stack.defer(async () => void await second.close());
  const inbox = new Inbox(second);
  await stage.send(108, 108);

  const sent = [...numbers(1, had), ...numbers(101, 108)];
  for (const [user, follower] of followers) {
    await follower.until(() => follower.data.includes(108), `the last message of ${user}`, WAIT_MS);
    follower.assertNoFault();
    assertEquals(follower.data, sent, user);
    assertEquals(follower.gaps.map(({ why, from }) => [why, from]), isLost ? [["epoch", had + 1]] : [], user);
  }
  await inbox.until(() => inbox.data.includes(108), "the last message of the SDK", WAIT_MS);
  assertEquals([...firstInbox.data, ...inbox.data], sent);
  assertEquals(inbox.gaps.map(({ why, from }) => [why, from]), isLost ? [["epoch", had + 1]] : []);
}

/** Copies the data at the beginning, and puts it back. */
function copied(server: RedisServerOptions, more: Partial<Scenario> = {}): Scenario {
  let copy: Awaited<ReturnType<RedisServer["copyData"]>>;
  return {
    server,
    async begin({ redis }) {
      copy = await redis.copyData();
    },
    happens: ({ redis }) => redis.restart({ from: copy }),
    ...more,
  };
}

/** The second server is a master by itself from the beginning on, and does not get what comes then. */
const APART: Partial<Scenario> = {
  pair: true,
  async begin({ redis, other }) {
    await inStep(redis, other);
    await other.follow(undefined);
  },
};

async function failBack({ redis, other }: Pick<Stage, "redis" | "other">): Promise<void> {
  await redis.follow(other);
  await redis.copied();
  await redis.follow(undefined);
}

/** Loads the snapshot that was saved at the beginning into the process that runs, which goes on under the same run id. */
const LOADED: Scenario = {
  server: { args: ["--enable-debug-command", "yes"] },
  begin: async ({ redis }) => void await redis.cli("SAVE"),
  happens: async ({ redis }) => void await redis.cli("DEBUG", "RELOAD", "NOSAVE"),
};

function whileNoNodeRuns(scenario: Scenario): Scenario {
  return {
    ...scenario,
    async happens(stage) {
      await stage.service.server.shutdown();
      await scenario.happens(stage);
      stage.service = await stage.start();
    },
  };
}

const LOSSES: Record<string, Scenario> = {
  "an older append-only file is put back": copied({ appendOnly: true }),
  "an older snapshot is put back": copied({}),
  "an older append-only file is put back while no node runs": whileNoNodeRuns(copied({ appendOnly: true })),
  "an older snapshot is loaded into a Redis that goes on": LOADED,
  "an older snapshot is loaded into a Redis that goes on, while no node runs": whileNoNodeRuns(LOADED),
  "what is lost was sent by a node that has left": copied({ appendOnly: true }, {
    async between(stage) {
      await using leaver = await Service.start({ REDIS_URL: stage.redis.url });
      await stage.send(6, 10, leaver);
      const isTold = async () =>
        (await stage.redis.cli("HVALS", LAST_KEY) as string[]).some((record) =>
          / 10 \S+ connected$/.test(record)
        );
      await until(isTold, "the last append to be told", WAIT_MS);
      await haveLooked(stage.redis, 2);
    },
  }),
  "a master becomes a copy and master again, and its clients are cut off": {
    ...APART,
    async happens(stage) {
      await failBack(stage);
      await killClients(stage.redis);
    },
  },
  "a master becomes a copy and master again, and its clients stay": {
    ...APART,
    happens: failBack,
  },
  "a replica that lags takes over": {
    ...APART,
    async happens({ redis, other, way }) {
      way.turn(other.port);
      await redis.stop({ signal: "SIGKILL" });
    },
  },
  "a replica that lags takes over, and connections to the old master stay": {
    ...APART,
    async happens({ redis, other, way }) {
      way.turn(other.port);
      await redis.follow(other);
    },
  },
  "a replica that lags takes over, and is restarted": {
    ...APART,
    async happens({ redis, other, way }) {
      await other.restart({ keepData: true });
      way.turn(other.port);
      await redis.stop({ signal: "SIGKILL" });
    },
  },
  "a replica that lags is promoted while nodes dial it, one of which remembers and one is new": {
    ...APART,
    async happens({ redis, other, way, service, start }) {
      // Its master is nobody: it stays a replica, with what it has.
      await other.cli("REPLICAOF", "127.0.0.1", 1);
      way.turn(other.port);
      await redis.stop({ signal: "SIGKILL" });
      for (const one of [service, await start()]) {
        await until(
          async () => /^Redis is a replica/.test((await one.readiness()).why ?? ""),
          "the node to have met the replica",
          WAIT_MS,
        );
      }
      await other.follow(undefined);
    },
  },
};

const NO_LOSSES: Record<string, Scenario> = {
  "Redis restarts with its append-only file": {
    server: { appendOnly: true },
    happens: ({ redis }) => redis.restart({ keepData: true }),
  },
  "Redis is killed, and has its append-only file": {
    server: { appendOnly: true },
    happens: ({ redis }) => redis.restart({ keepData: true, signal: "SIGKILL" }),
  },
  "Redis saves a snapshot as it ends, and restarts from that": {
    server: { args: ["--save", "3600 1"] },
    async happens({ redis }) {
      await redis.stop();
      await redis.restart({ keepData: true });
    },
  },
  "a replica takes over as planned": {
    pair: true,
    async happens({ redis, other, way }) {
      await inStep(redis, other);
      await redis.failOverTo(other);
      way.turn(other.port);
    },
  },
  "the connection for commands is made anew": {
    happens: async ({ redis }) => void await redis.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
  },
  "Redis restarts and nothing was ever sent": {
    server: { appendOnly: true },
    before: 0,
    between: () => Promise.resolve(),
    happens: ({ redis }) => redis.restart({ keepData: true }),
  },
  "Redis restarts and the last to send has left": {
    server: { appendOnly: true },
    async between(stage) {
      await using leaver = await Service.start({ REDIS_URL: stage.redis.url });
      await stage.send(6, 10, leaver);
    },
    happens: ({ redis }) => redis.restart({ keepData: true }),
  },
};

/** Both of two nodes that live through a loss had accepted what is lost, and go on sending to the same users. */
const SHARED_LOSSES: Record<string, (stage: Pick<Stage, "redis" | "other" | "way">) => Promise<void>> = {
  "a replica that lags takes over": async ({ redis, other, way }) => {
    way.turn(other.port);
    await redis.stop({ signal: "SIGKILL" });
  },
  "a master becomes a copy and master again, and its clients stay": failBack,
};

for (const [what, happens] of Object.entries(SHARED_LOSSES)) {
  redisTest(`Two nodes agree on one epoch, and number nothing twice, when ${what}`, async () => {
    await using redis = await RedisServer.start();
    await using other = await RedisServer.start({ replicaOf: redis });
    await using way = await TcpProxy.start(redis.port);
    const env = { REDIS_URL: way.through(redis.url) };
    await using here = await Service.start(env);
    await using there = await Service.start(env);
    const accepted = new Set<string>();
    const epochs = new Map<string, unknown>();
    const send = async (first: number, last: number) => {
      for (const n of numbers(first, last)) {
        for (const user of ["stays", "leaves"]) {
          let sent: { status: number; body: Record<string, unknown> } | undefined;
          const through = n % 2 === 0 ? here : there;
          const accept = async () => [200, 202].includes((sent = await through.send(user, n)).status);
          await until(accept, `message ${n} to be accepted`, WAIT_MS);
          const place = `${user} ${sent!.body.epoch}.${sent!.body.seq}`;
          assert(!accepted.has(place), `${place} was given out twice`);
          accepted.add(place);
          epochs.set(`${user} ${n}`, sent!.body.epoch);
        }
      }
    };
    await using stays = await Follower.open(here.socketUrl("stays"));
    stays.follow(() => here.socketUrl("stays"));
    await using leaves = await Follower.open(there.socketUrl("leaves"));
    await send(1, 5);
    await inStep(redis, other);
    await other.follow(undefined);
    await send(6, 10);
    for (const one of [stays, leaves]) await one.reaches(10);
    await leaves.disconnect();
    await happens({ redis, other, way });
    await send(101, 110);
    await leaves.returnsTo(here.socketUrl("leaves"));
    for (const [user, one] of Object.entries({ stays, leaves })) {
      await one.until(() => one.data.includes(110), "the last message", WAIT_MS);
      one.assertNoFault();
      assertEquals(one.data, [...numbers(1, 10), ...numbers(101, 110)]);
      const [gap, ...more] = one.gaps.map(({ why, from }) => [why, from]);
      assertEquals(gap, ["epoch", 11]);
      // The second node to look can't know that its last append was before the timeline that it meets, when the look itself
      // took longer than that was ago: then it begins another. That it need not, tests/history/timeline_test.ts shows.
      assert(more.length <= 1 && more.every(([why]) => why === "epoch"), `${more}`);
      assertEquals(epochs.get(`${user} 109`), epochs.get(`${user} 110`));
    }
  });
}

for (const [what, scenario] of Object.entries(LOSSES)) {
  redisTest(`Framed clients are told, and get what follows, when ${what}`, () => play(scenario, true));
}

for (const [what, scenario] of Object.entries(NO_LOSSES)) {
  redisTest(`Framed clients are told of no loss when ${what}`, () => play(scenario, false));
}
