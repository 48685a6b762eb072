/**
 * Each fault once and short: what clients received and what they were told is missing must be all that was accepted,
 * nothing twice, everything in order. A steady sender with idempotency keys sends to four users, two on each of two
 * nodes; each client comes back by itself to the other one. `tests/programs/chaos.ts` does it long and at random.
 */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { formatEnvelope } from "../../src/protocol/envelope.ts";
import { until, withDeadline } from "../../testkit/deadline.ts";
import { Follower } from "../../testkit/follower.ts";
import { ProcessService } from "../../testkit/process_service.ts";
import { RedisCommands } from "../../testkit/redis_commands.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { Service } from "../../testkit/service.ts";
import { SteadySender } from "../../testkit/steady_sender.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const USERS = ["alice", "bob", "carol", "dave"];
const TEST_MS = 90_000;
const ENV = {
  USERWIRE_HISTORY: "2000",
  USERWIRE_MAX_REPLAY: "2000",
  USERWIRE_PING_S: "1",
  USERWIRE_REDIS_TIMEOUT_MS: "500",
};

/** Anything that holds sockets and takes sends. */
interface Node {
  readonly url: string;
  socketUrl(username: string): string;
}

interface Scene {
  readonly redis: RedisServer;
  readonly followers: ReadonlyMap<string, Follower>;
  readonly sender: SteadySender;
  /** Resolves when so many more messages were accepted, and everybody has got some. */
  flows(count?: number): Promise<void>;
  gaps(): string[];
}

/**
 * Runs a fault while messages flow, and settles the accounts.
 * @param nodes Those there are; looked at anew for each connection and each send.
 */
async function play(
  redis: RedisServer,
  nodes: () => readonly Node[],
  fault: (scene: Scene) => Promise<void>,
): Promise<Scene> {
  let turn = 0;
  const next = () => {
    const there = nodes();
    return there[turn++ % there.length]!;
  };
  await using stack = new AsyncDisposableStack();
  const followers = new Map<string, Follower>();
  for (const user of USERS) {
    const follower = stack.use(new Follower());
    // On a busy machine a Redis that is well may take longer than these nodes wait.
    await follower.returnsTo(next().socketUrl(user));
    follower.follow(() => next().socketUrl(user));
    followers.set(user, follower);
  }
  const sender = stack.use(new SteadySender({ users: USERS, url: () => next().url }));
  const scene: Scene = {
    redis,
    followers,
    sender,
    async flows(count = 40) {
      const due = sender.total + count;
      await until(
        () => sender.total >= due,
        `${count} messages to be accepted`,
        30_000,
        () => `${sender.total} of ${due} were; the last failure was ${sender.lastFailure}`,
      );
      for (const [user, follower] of followers) {
        const { length } = follower.messages;
        const more = () => follower.messages.length > length;
        await follower.until(more, `${user} to get a message`, 30_000);
      }
    },
    gaps: () => [...new Set([...followers.values()].flatMap(({ gaps }) => gaps.map(({ why }) => why)))],
  };
  const run = async () => {
    await scene.flows();
    await fault(scene);
    await scene.flows();
    await sender.end();
    for (const [user, follower] of followers) await follower.accountsFor(sender.accepted.get(user)!, 30_000);
    for (const follower of followers.values()) follower.assertNoFault();
  };
  try {
    await withDeadline(run(), TEST_MS, "the fault to be overcome");
  } catch (error) {
    // What fails at the leaving comes of it, and would hide it.
    await stack.disposeAsync().catch(() => {});
    throw error;
  }
  return scene;
}

/** Declares a test with two nodes in this process. @param options.mayBeWhole Whether there may as well be no gap. */
function fault(
  claim: string,
  body: (scene: Scene) => Promise<void>,
  options: { args?: readonly string[]; gaps?: readonly string[]; mayBeWhole?: boolean } = {},
): void {
  redisTest(`Nothing is lost in silence when ${claim}`, async () => {
    const { args = [], gaps = [], mayBeWhole = false } = options;
    await using redis = await RedisServer.start({ args });
    await using here = await Service.start({ REDIS_URL: redis.url, ...ENV });
    await using there = await Service.start({ REDIS_URL: redis.url, ...ENV });
    const nodes = [here, there].map((service): Node => ({
      url: service.server.url,
      socketUrl: (username) => service.socketUrl(username),
    }));
    const scene = await play(redis, () => nodes, body);
    if (!mayBeWhole || scene.gaps().length > 0) assertEquals(scene.gaps(), gaps);
  });
}

function replayed({ followers }: Scene): number {
  return [...followers.values()].flatMap(({ messages }) => messages).filter(({ r }) => r === 1).length;
}

// ---------------------------------------------------------------------------------------------------------
// Redis

fault("Redis drops the subscriptions", async (scene) => {
  for (let i = 0; i < 5; i++) {
    await scene.redis.cli("CLIENT", "KILL", "TYPE", "pubsub");
    await scene.flows(20);
  }
});

fault("Redis drops the connections for commands", async ({ redis, flows }) => {
  for (let i = 0; i < 2; i++) {
    await redis.cli("CLIENT", "KILL", "TYPE", "normal");
    await flows(20);
  }
});

fault("a subscription is dropped between store and delivery", async ({ redis, followers }) => {
  const alice = followers.get("alice")!;
  // What a send does, for a message that the sender knows nothing of.
  const script = `
    local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
    local envelope = ARGV[1] .. '"seq":' .. seq .. ',' .. ARGV[2]
    redis.call('XADD', KEYS[2], seq .. '-0', 'm', envelope, 'x', ARGV[3])
    return {redis.call('HGET', KEYS[1], 'epoch'), seq, redis.call('PUBLISH', 'alice', envelope)}`;
  const { head, tail } = formatEnvelope({ kind: "json", text: "0" }, { id: "lost", ts: Date.now() });
  const keys = ["userwire:{alice}:position", "userwire:{alice}:inbox"];
  using commands = await RedisCommands.connect({ port: redis.port });
  await commands.command("MULTI");
  await commands.command("EVAL", script, keys.length, ...keys, head, tail, Date.now() + 60_000);
  // Before a byte of it has left Redis.
  await commands.command("CLIENT", "KILL", "TYPE", "pubsub");
  const [[epoch, seq, reached], killed] = await commands.command("EXEC") as [
    [string, number, number],
    number,
  ];
  assertEquals(reached, 1, "it was handed over");
  // Those of the users and of two nodes, and of a probe that is under way.
  assertGreaterOrEqual(killed, USERS.length + 2, "and the hand cut off");
  await alice.accountsFor([{ id: "lost", epoch, seq }]);
  assertEquals(alice.messages.find(({ id }) => id === "lost")?.r, 1);
});

fault("Redis stands still", async ({ redis, sender, flows }) => {
  await redis.pause();
  const { failures } = sender;
  await until(() => sender.failures > failures + 20, "sends to fail");
  redis.resume();
  await flows();
});

fault("Redis takes no commands for a while", async ({ redis, flows }) => {
  await redis.cli("CLIENT", "PAUSE", 800, "ALL");
  await flows(80);
});

fault("Redis restarts with its data", async ({ redis }) => {
  await redis.restart({ keepData: true });
  // What was accepted between the snapshot and the end is lost, where there was any.
}, { gaps: ["epoch"], mayBeWhole: true });

fault("Redis restarts from an older snapshot", async ({ redis, flows }) => {
  await redis.cli("SAVE");
  await flows();
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
}, { gaps: ["epoch"] });

fault(
  "Redis restarts twice from the same snapshot, and loses the epoch in between",
  async ({ redis, flows }) => {
    await redis.cli("SAVE");
    for (let life = 0; life < 2; life++) {
      await flows();
      await redis.stop({ signal: "SIGKILL" });
      await redis.restart({ keepData: true });
    }
  },
  { gaps: ["epoch"] },
);

fault("Redis restarts without its data, twice", async ({ redis, flows }) => {
  await redis.restart();
  await flows();
  await redis.restart({ signal: "SIGKILL" });
}, { gaps: ["epoch"] });

fault("Redis loses its data while everybody is connected", async ({ redis }) => {
  await redis.cli("FLUSHALL");
}, { gaps: ["epoch"] });

fault("Redis with an append-only file is killed and comes back", async ({ redis }) => {
  await redis.stop({ signal: "SIGKILL" });
  await redis.restart({ keepData: true });
  // While an fsync takes its time on a busy disk, Redis answers before it has written: so it makes none.
}, { args: ["--appendonly", "yes", "--appendfsync", "no"] });

fault("Redis forgets the scripts", async ({ redis }) => {
  await redis.cli("SCRIPT", "FLUSH");
});

// ---------------------------------------------------------------------------------------------------------
// Nodes and wires

redisTest("Nothing is lost in silence when a node is killed", async () => {
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url, ...ENV };
  await using survivor = await ProcessService.start(env);
  await using victim = await ProcessService.start(env);
  const nodes = [survivor, victim];
  const scene = await play(redis, () => nodes, async ({ flows, followers }) => {
    const greetings = () =>
      [...followers.values()].reduce((sum, follower) => sum + follower.greetings.length, 0);
    const before = greetings();
    victim.signal("SIGKILL");
    await victim.ended();
    nodes.pop();
    await flows(80);
    assert(greetings() >= before + 2, "Nobody had to come back");
    await using next = await ProcessService.start(env);
    nodes.push(next);
    await flows();
    nodes.pop();
    // It ends as it should, and its clients are sent away.
    next.signal("SIGTERM");
    await next.ended(15_000);
  });
  assertEquals(scene.gaps(), []);
});

redisTest("Nothing is lost in silence when wires are cut by a reset, and when clients stall", async () => {
  await using redis = await RedisServer.start();
  await using here = await Service.start({
    REDIS_URL: redis.url,
    ...ENV,
    USERWIRE_MAX_BUFFERED_BYTES: "131072",
    // Nothing happens to Redis: what a busy machine takes for a send is no failure.
    USERWIRE_REDIS_TIMEOUT_MS: "60000",
  });
  await using proxy = await TcpProxy.start(here.server.port);
  const node = { url: here.server.url, socketUrl: (user: string) => proxy.through(here.socketUrl(user)) };
  const scene = await play(redis, () => [node], async (scene) => {
    const { flows, sender, followers } = scene;
    for (let i = 0; i < 5; i++) {
      proxy.cut();
      await flows(20);
    }
    await until(
      () => here.logged("connection closed").length >= 5 * USERS.length,
      "the node to notice all that was cut",
      undefined,
      () => `it noticed ${here.logged("connection closed").length}`,
    );
    proxy.stall();
    const before = [...followers.values()].map(({ messages }) => messages.length);
    const due = sender.total + 100;
    await until(() => sender.total >= due, "messages to be sent into the stall");
    // What is too much for every buffer on the way: only then do they lag.
    const big = JSON.stringify("x".repeat(50_000));
    const { publisher } = here.server.app;
    for (let i = 0; i < 150; i++) {
      for (const user of USERS) {
        const { id, epoch, seq } = await publisher.send(user, { kind: "json", text: big });
        sender.accepted.get(user)!.push({ id, epoch: epoch!, seq: seq! });
      }
    }
    proxy.flow();
    for (const [i, follower] of [...followers.values()].entries()) {
      await follower.until(() => follower.messages.length > before[i]!, "messages after the stall");
    }
  });
  assertEquals(scene.gaps(), []);
  assert(replayed(scene) > 0, "Nobody lagged");
});
