/**
 * The nodes of this installation, as each says of itself: every five seconds into one hash in Redis, with an end, so that
 * one that dies is gone from there within fifteen. In memory there is no other node.
 *
 *     userwire:{<prefix>userwire:nodes}:alive   hash   node, by a name of its process -> end in Unix ms by Redis' clock, state
 */
import { sleep } from "../async/sleep.ts";
import { ticker } from "../async/ticker.ts";
import type { Config } from "../config/settings.ts";
import type { Engine } from "../engine/engine.ts";
import type { NodeState } from "../http/api/shapes.ts";
import { RESERVED_PREFIX } from "../protocol/username.ts";
import type { Registry } from "../session/registry.ts";
import { Script, type Scripts } from "../redis/commands.ts";

const REPORT_MS = 5_000;
const ALIVE_MS = 15_000;
/** How long Redis may take to take it out. */
const LEAVE_MS = 300;

/** Notes a node, takes out those that are gone, answers with all. Redis has one clock, nodes have many. */
const REPORT = new Script(
  `
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = now + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', ends) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
local states = {}
for i = 1, #all, 2 do
  local its, state = string.match(all[i + 1], '^(%d+) (.*)$')
  its = tonumber(its or 0)
  -- One that ends later than any can was noted before the clock was set back.
  if its > now and its <= ends then states[#states + 1] = state
  else redis.call('HDEL', KEYS[1], all[i]) end
end
return states
`,
  { probe: (tag) => ({ keys: [`userwire:{${tag}}:alive`], args: ["probe", "{}", "1000"] }) },
);
const LEAVE = new Script("return redis.call('HDEL', KEYS[1], ARGV[1])");

interface NodesOptions {
  /** Undefined in memory. */
  readonly redis: Scripts | undefined;
  readonly channelPrefix: string;
  /** What this node is now. */
  state(): NodeState;
}

class Nodes {
  readonly #redis: Scripts | undefined;
  readonly #key: string;
  readonly #state: () => NodeState;
  /** Two nodes may have the same name, and a node that is started again has the one it had. */
  readonly #id = crypto.randomUUID();
  readonly #stopReporting: (() => void) | undefined;

  constructor({ redis, channelPrefix, state }: NodesOptions) {
    this.#redis = redis;
    this.#key = `userwire:{${channelPrefix}${RESERVED_PREFIX}nodes}:alive`;
    this.#state = state;
    if (!redis) return;
    redis.prepare(REPORT, LEAVE);
    this.#stopReporting = ticker.every(REPORT_MS, () => void this.report());
  }

  /** Notes what this node is now, if Redis can be reached; else the next time. Never rejects. */
  async report(): Promise<void> {
    // The connection to Redis has told the log why.
    await this.list().catch(() => {});
  }

  /**
   * All nodes, in order of their names: this one as it is now, others as they were in the last five seconds.
   * @throws {BrokerUnavailableError}
   */
  async list(): Promise<NodeState[]> {
    const own = this.#state();
    if (!this.#redis) return [own];
    const args = [this.#id, JSON.stringify(own), String(ALIVE_MS)];
    const states = await this.#redis.evaluate(REPORT, [this.#key], args) as string[];
    return states.map((state): NodeState => JSON.parse(state)).sort(byName);
  }

  /** Takes this node out, if Redis can be reached. Never rejects, and lets the end of a node wait for a moment only. */
  async close(): Promise<void> {
    this.#stopReporting?.();
    if (!this.#redis) return;
    await sleep(LEAVE_MS, this.#redis.evaluate(LEAVE, [this.#key], [this.#id]).catch(() => {}));
  }
}

interface NodesParts {
  readonly config: Pick<Config, "channelPrefix" | "subscriptions">;
  readonly node: string;
  readonly version: string;
  readonly engine: Pick<Engine, "redis">;
  readonly connections: Pick<Registry, "size">;
  /** Whether this node takes no more sockets. */
  isDraining(): boolean;
}

/** Begins to say what this node is. */
export function openNodes(
  { config, node, version, engine: { redis }, connections, isDraining }: NodesParts,
): Nodes {
  const { channelPrefix, subscriptions } = config;
  const fixed = { node, version, since: new Date().toISOString() };
  return new Nodes({
    redis,
    channelPrefix,
    state: () => ({
      ...{ ...fixed, connections: connections.size, draining: isDraining() },
      ...(redis && { subscriptions }),
    }),
  });
}

function byName(a: NodeState, b: NodeState): number {
  const [x, y] = [`${a.node} ${a.since}`, `${b.node} ${b.since}`];
  return x < y ? -1 : x > y ? 1 : 0;
}
