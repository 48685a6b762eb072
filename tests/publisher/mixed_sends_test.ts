/**
 * Sends of every kind at one time: to groups and to users from two nodes, by the Redis function beside them, while users join
 * and leave, nodes are killed in the middle of a send, and the slots of a cluster move. The books must balance.
 */
import { assertEquals } from "@std/assert";
import { BrokerUnavailableError } from "../../src/protocol/errors.ts";
import { until } from "../../testkit/deadline.ts";
import { FunctionCaller } from "../../testkit/function_caller.ts";
import { GroupPublisher, names } from "../../testkit/group_calls.ts";
import { Chance } from "../../testkit/random.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

const SENDS = 1_000;
/** Sends by the function for each of these. */
const CALLS_PER_SEND = 0.25;
/** One in so many sends goes to the large group, and to the small one. */
const LARGE_ONE_IN = 8;
const SMALL_ONE_IN = 3;
/** One in so many of the names come and go, in both groups. */
const WANDERS_ONE_IN = 10;
/** Sends under way at one time. */
const LANES = 16;
/** A send that reaches this page goes no further when its node is killed. */
const KILLED_AFTER = 3;

interface Mix {
  readonly url: string;
  readonly chance: Chance;
  /** In the large group: more than three pages. */
  readonly users: readonly string[];
  /** Nodes that are killed in the middle of a send to the large group. */
  readonly kills: number;
  /** What else happens meanwhile; it should end when it is told to. */
  readonly meanwhile?: (over: AbortSignal) => Promise<void>;
}

class Mixed {
  readonly #mix: Mix;
  readonly #nodes: readonly GroupPublisher[];
  /** The sum of what all answers said. */
  #given = 0;
  /** By group, or by user: the ids of what was sent there, or the numbers that the function answered. */
  readonly #ids = new Map<string, string[]>();
  readonly #numbers = new Map<string, number[]>();

  constructor(mix: Mix, nodes: readonly GroupPublisher[]) {
    this.#mix = mix;
    this.#nodes = nodes;
  }

  async run(): Promise<void> {
    const { users, kills, meanwhile, url } = this.#mix;
    const [first] = this.#nodes as [GroupPublisher];
    await first.group("large", users);
    await first.publisher.groups.put("small", users.slice(0, 40));
    const over = new AbortController();
    let left = SENDS;
    const lane = async () => {
      while (left-- > 0) await this.#something(left);
    };
    const calls = async () => {
      using caller = new FunctionCaller(url);
      for (let n = 0; n < SENDS * CALLS_PER_SEND; n++) {
        const user = this.#anybody();
        note(this.#numbers, user, await caller.send(user, `"call-${n}"`));
        this.#given++;
      }
    };
    const sending = Promise.all([
      ...Array.from({ length: LANES }, lane),
      calls(),
      ...Array.from({ length: kills }, (_, i) => this.#killed(i)),
    ]).finally(() => over.abort());
    await Promise.all([sending, meanwhile?.(over.signal)]);
    await this.#balance();
  }

  #anybody(): string {
    return this.#mix.users[this.#mix.chance.below(this.#mix.users.length)]!;
  }

  async #something(n: number): Promise<void> {
    const { chance } = this.#mix;
    const { publisher } = this.#nodes[n % this.#nodes.length]!;
    if (n % 20 === 0) await this.#wander();
    await chance.pause();
    const group = chance.below(LARGE_ONE_IN) === 0
      ? "large"
      : chance.below(SMALL_ONE_IN) === 0
      ? "small"
      : undefined;
    if (group !== undefined) return await this.#toGroup(publisher, group, `send-${n}`);
    const user = this.#anybody();
    const options = { idempotencyKey: `send-${n}` };
    const { id } = await this.#insist(() => publisher.send(user, n, options));
    note(this.#ids, user, id);
    this.#given++;
  }

  async #toGroup(publisher: GroupPublisher["publisher"], group: string, key: string): Promise<void> {
    const options = { idempotencyKey: key };
    const result = await this.#insist(() => publisher.sendToGroup(group, key, options));
    assertEquals([result.stored, result.unknown, result.failed], [result.users, 0, undefined]);
    note(this.#ids, group, result.id);
    this.#given += result.users;
  }

  /** Somebody leaves a group, and comes back. */
  async #wander(): Promise<void> {
    const { users, chance } = this.#mix;
    const { groups } = this.#nodes[chance.below(this.#nodes.length)]!.publisher;
    const [group, size] = chance.below(2) === 0 ? ["small", 40] as const : ["large", users.length] as const;
    const user = users[chance.below(size / WANDERS_ONE_IN) * WANDERS_ONE_IN]!;
    await this.#insist(() => groups.remove(group, [user]));
    await chance.pause();
    await this.#insist(() => groups.add(group, [user]));
  }

  /** A node that is gone after the third page of a send; another one is asked for the same. */
  async #killed(nth: number): Promise<void> {
    const key = `killed-${nth}`;
    const reached = Promise.withResolvers<void>();
    {
      await using victim = await GroupPublisher.open(this.#mix.url);
      victim.afterPage = (page) => {
        if (page < KILLED_AFTER) return;
        reached.resolve();
        return new Promise(() => {});
      };
      victim.publisher.sendToGroup("large", key, { idempotencyKey: key }).catch(reached.reject);
      await reached.promise;
    }
    await using heir = await GroupPublisher.open(this.#mix.url);
    await this.#toGroup(heir.publisher, "large", key);
  }

  /** Does it again as long as it is told that Redis, or a part of it, is away. */
  async #insist<T>(call: () => Promise<T>): Promise<T> {
    let result: { readonly value: T } | undefined;
    let said: unknown;
    const isDone = async () => {
      try {
        result = { value: await call() };
      } catch (error) {
        if (!(error instanceof BrokerUnavailableError)) throw error;
        said = error.message;
      }
      return result !== undefined;
    };
    // A run that a killed node held is another's only after its lease.
    await until(isDone, "a call to be taken", 60_000, () => said);
    return result!.value;
  }

  async #balance(): Promise<void> {
    const { users } = this.#mix;
    const histories = await this.#nodes[0]!.histories(users);
    for (const [i, { last, ids, seqs }] of histories.entries()) {
      const user = users[i]!;
      assertEquals(seqs, Array.from({ length: last }, (_, i) => i + 1), `${user} has holes`);
      assertEquals(new Set(ids).size, ids.length, `${user} has one twice`);
      const missing = (sent: readonly string[]) => new Set(sent).difference(new Set(ids)).size;
      assertEquals(missing(this.#ids.get(user) ?? []), 0, `${user} has not all that was sent to them`);
      const numbers = new Set(this.#numbers.get(user) ?? []);
      assertEquals(numbers.difference(new Set(seqs)).size, 0, `${user} has not all of the function's`);
      // Who was a member all the time has everything.
      if (i % WANDERS_ONE_IN === 0) continue;
      const groups = i < 40 ? ["large", "small"] : ["large"];
      const toGroups = groups.flatMap((group) => this.#ids.get(group) ?? []);
      assertEquals(missing(toGroups), 0, `${user} has not all of their groups`);
      const own = (this.#ids.get(user)?.length ?? 0) + numbers.size;
      assertEquals(last, toGroups.length + own, `${user} has more than was sent`);
    }
    assertEquals(histories.reduce((sum, { last }) => sum + last, 0), this.#given);
  }
}

function note<T>(notes: Map<string, T[]>, name: string, what: T): void {
  const known = notes.get(name);
  if (known) known.push(what);
  else notes.set(name, [what]);
}

async function balances(mix: Mix): Promise<void> {
  await using first = await GroupPublisher.open(mix.url, { redisFunctions: "load" });
  await using second = await GroupPublisher.open(mix.url, { redisFunctions: "load" });
  await new Mixed(mix, [first, second]).run();
}

redisTest(
  "1,000 sends to groups and users from two nodes, and the function's, balance while users come and nodes go",
  async () => {
    await using redis = await RedisServer.start();
    await Chance.run((chance) => balances({ url: redis.url, chance, users: names(330), kills: 6 }));
  },
);

redisTest("1,000 sends of every kind balance on a cluster, whose slots move meanwhile", async () => {
  await using cluster = await ClusterSet.start();
  const users = names(930);
  const [from, to] = await cluster.masters() as [ClusterSet["nodes"][number], ClusterSet["nodes"][number]];
  const moving = new Set<number>();
  for (const user of users.filter((_, i) => i % 15 === 0)) {
    const slot = await cluster.slotOf(user);
    if ((await cluster.keeperOf(slot)).id === from.id) moving.add(slot);
  }
  await Chance.run((chance) =>
    balances({
      ...{ url: cluster.url, chance, users, kills: 1 },
      async meanwhile(over) {
        for (const slot of moving) {
          if (over.aborted) return;
          await cluster.move([slot], from, to);
          await cluster.settled();
        }
      },
    })
  );
});
