/** A backend that sends to groups and to everybody, and never gives up. One send to each is under way at a time. */
import { insist, type Taken } from "./insist.ts";
import { pause, type World } from "./world.ts";

/** Between two sends to a group, or two broadcasts. */
const REST_MS = 400;
/** A node waits for one that was killed in the middle of a send, until that may have ended. */
const TIMEOUT_MS = 25_000;

export interface CrowdSenderOptions {
  readonly users: readonly string[];
  /** Users who have no client. */
  readonly absent: readonly string[];
  /** Whether a page may come twice: on a cluster. */
  readonly mayRepeatPage: boolean;
}

interface Group {
  readonly name: string;
  readonly members: readonly string[];
  readonly absent: readonly string[];
}

export class CrowdSender {
  readonly #world: World;
  readonly #options: CrowdSenderOptions;
  readonly #groups: readonly Group[];
  #isStopped = false;
  #isAbandoned = false;
  retries = 0;

  constructor(world: World, options: CrowdSenderOptions) {
    this.#world = world;
    this.#options = options;
    const { users, absent } = options;
    this.#groups = [
      { name: "few", members: users.filter((_, i) => i % 5 === 0), absent: absent.slice(0, 3) },
      // More than a page.
      { name: "many", members: users.filter((_, i) => i % 3 !== 0), absent },
    ];
  }

  /** Resolves when it was stopped, and each send is accepted. */
  async run(): Promise<void> {
    const repeat = async (send: () => Promise<unknown>) => {
      while (!this.#isStopped) {
        await send();
        await pause(REST_MS);
      }
    };
    await Promise.all([
      ...this.#groups.map(async (group) => {
        await this.#put(group);
        await repeat(() => this.#toGroup(group));
      }),
      repeat(() => this.broadcast().accepted),
    ]);
  }

  /** @returns The number of the send. */
  broadcast(): { n: number; accepted: Promise<void> } {
    const { ledger } = this.#world;
    const n = ledger.number();
    const accepted = this.#insist(n, "v1/broadcast").then((taken) => {
      if (!taken) return;
      const { answer: { epoch, seq, sockets }, ...sent } = taken;
      ledger.acceptBroadcast({ n, epoch, seq, sockets, ...sent });
    });
    return { n, accepted };
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** Gives up what is not accepted yet. */
  abandon(): void {
    this.#isStopped = this.#isAbandoned = true;
  }

  async #toGroup(group: Group): Promise<void> {
    const { ledger } = this.#world;
    const n = ledger.number();
    const onRefused = async (status: number, detail: string) => {
      // The one before it, which nobody waits for any more, may still be under way.
      if (status === 429) return;
      if (status === 404) await this.#put(group);
      else ledger.violate(`A send to a group was answered ${status}: ${detail}`);
    };
    const taken = await this.#insist(n, `v1/groups/${group.name}/messages`, onRefused);
    if (!taken) return;
    const { answer: { sockets, nodes, ...answer }, ...sent } = taken;
    ledger.acceptToGroup({
      ...{ n, group: group.name, members: group.members, absent: group.absent.length },
      answer: { ...answer, sockets: sockets ?? nodes },
      mayRepeatPage: this.#options.mayRepeatPage,
      ...sent,
    });
  }

  #insist(
    n: number,
    path: string,
    onRefused?: (status: number, detail: string) => Promise<void>,
  ): Promise<Taken | undefined> {
    return insist(this.#world, {
      ...{ n, path, timeoutMs: TIMEOUT_MS, ...(onRefused && { onRefused }) },
      isGivenUp: () => this.#isAbandoned,
      onRetry: () => this.retries++,
    });
  }

  /** Makes the group, as a backend does when it hears that there is none; what fails is tried again with the next send. */
  async #put({ name, members, absent }: Group): Promise<void> {
    const [node] = this.#world.nodes;
    try {
      const response = await fetch(new URL(`v1/groups/${name}`, node?.url), {
        method: "PUT",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ users: [...members, ...absent] }),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await response.body?.cancel();
    } catch {
      // It is not there yet, or not any more.
    }
  }
}
