/** Events in Redis, for many nodes: decided where the count is, and carried by whichever node comes first. */
import type { Scripts } from "../redis/commands.ts";
import { DONE, KEYS, NOTE, PUT_OFF, SETTLE, SWEEP, TAKE } from "./event_scripts.ts";
import type { EventStore, EventStoreOptions, EventType, Taken } from "./events.ts";
import { fieldsOf, SENDING_MS, type WatchedMessage } from "./unacked.ts";
import { SENT, TELL_UNACKED, UNWATCH, WATCH } from "./unacked_scripts.ts";

export interface RedisEventStoreOptions extends EventStoreOptions {
  /** Name of this node. */
  readonly node: string;
  /** What precedes usernames in the names of channels. */
  readonly channelPrefix: string;
}

const ID_PREFIX = "evt_";

export class RedisEventStore implements EventStore {
  readonly #scripts: Scripts;
  readonly #options: RedisEventStoreOptions;
  readonly #keys: readonly string[];
  /** The highest that was seen: a store that was set back, with a clock that is behind, goes on from there. */
  #n = "0";
  /** In which life that was. */
  #life = "";
  /** Id of the last `users.unknown`. */
  #unknown = "";
  #dropped = 0;

  constructor(scripts: Scripts, options: RedisEventStoreOptions) {
    this.#scripts = scripts;
    this.#options = options;
    this.#keys = KEYS.map((name) => `userwire:{${options.channelPrefix}userwire:events}:${name}`);
    scripts.prepare(NOTE, SETTLE, SWEEP, TAKE, DONE, PUT_OFF, WATCH, SENT, UNWATCH, TELL_UNACKED);
  }

  note(opened: readonly string[], closed: readonly string[]): Promise<boolean> {
    return this.#note(opened, closed, []);
  }

  settle(): Promise<boolean> {
    return this.#look(SETTLE, [this.#options.channelPrefix], (user) => user);
  }

  async sweep(): Promise<void> {
    const users = await this.#scripts.evaluate(SWEEP, this.#keys, [""]) as string[];
    if (users.length === 0) return;
    const counts = await this.#options.counts(users);
    const gone = users.filter((_, i) => counts[i] === 0);
    if (gone.length > 0) await this.#note([], [], gone);
  }

  async take(most: number): Promise<Taken> {
    const { node, holdMs } = this.#options;
    const [oldest, taken] = await this.#tell(TAKE, [node, String(most), String(holdMs)]) as [
      string,
      [id: string, type: EventType, data: string][],
    ];
    const dropped = this.#dropped;
    this.#dropped = 0;
    return {
      entries: taken.map(([id, type, data]) => ({ id: ID_PREFIX + id, type, atMs: parseInt(id), data })),
      oldestMs: oldest === "" ? undefined : parseInt(oldest),
      dropped,
    };
  }

  async done(id: string): Promise<void> {
    await this.#scripts.evaluate(DONE, this.#keys, [id.slice(ID_PREFIX.length)]);
  }

  async putOff(id: string): Promise<void> {
    await this.#scripts.evaluate(PUT_OFF, this.#keys, [id.slice(ID_PREFIX.length)]);
  }

  async watch(message: WatchedMessage, users: readonly string[]): Promise<void> {
    const { token, afterMs } = message;
    const [due, kept] = afterMs === 0 ? [SENDING_MS, "0"] : [afterMs, "1"];
    const life = this.#scripts.lifeAt(this.#keys[0]!);
    const args = [token, String(due), kept + fieldsOf(message), ...users];
    this.#saw(await this.#scripts.evaluate(WATCH, this.#keys, args) as string, life);
  }

  async sent({ token, afterMs }: WatchedMessage, users: readonly string[], seq?: number): Promise<void> {
    const args = [token, seq === undefined ? "" : String(seq), afterMs === 0 ? "0" : "1", ...users];
    await this.#scripts.evaluate(SENT, this.#keys, args);
  }

  async unwatch(token: string, users: readonly string[]): Promise<void> {
    await this.#scripts.evaluate(UNWATCH, this.#keys, [token, ...users]);
  }

  tellUnacked(): Promise<boolean> {
    const { channelPrefix, counted } = this.#options;
    const userOf = (member: string) => member.slice(member.indexOf(" ") + 1);
    return this.#look(TELL_UNACKED, [channelPrefix, counted], userOf);
  }

  life(): string {
    const life = this.#scripts.lifeAt(this.#keys[0]!);
    return life === "" || this.#unknown === "" ? "" : `${life} ${this.#unknown}`;
  }

  async #note(
    opened: readonly string[],
    closed: readonly string[],
    missing: readonly string[],
  ): Promise<boolean> {
    const numbers = [this.#options.offlineAfterMs, opened.length, closed.length].map(String);
    const args = [...numbers, ...opened, ...closed, ...missing];
    const [isNew] = await this.#tell(NOTE, args) as [number];
    return isNew === 1;
  }

  /** A script that ends with `settleDue`. @returns Whether there may be more who are due. */
  async #look(
    script: typeof SETTLE,
    args: readonly string[],
    userOf: (member: string) => string,
  ): Promise<boolean> {
    const [looked, found] = await this.#tell(script, args) as [number, string[]?];
    if (!found) return looked > 0;
    const members = found.filter((_, i) => i % 2 === 0);
    const counts = await this.#options.counts(members.map(userOf));
    const counted = members.flatMap((member, i) => [member, found[i * 2 + 1]!, String(counts[i])]);
    await this.#tell(script, [...args, ...counted]);
    return true;
  }

  /** @returns What the script answers beyond what all of them do. */
  async #tell(script: typeof NOTE, args: readonly string[]): Promise<unknown[]> {
    const life = this.#scripts.lifeAt(this.#keys[0]!);
    const isOther = life !== this.#life && life !== "" && this.#life !== "";
    const all = [life, isOther ? `-${this.#n}` : this.#n, ...args];
    const [n, unknown, dropped, ...rest] = await this.#scripts.evaluate(script, this.#keys, all) as [
      string,
      string,
      number,
      ...unknown[],
    ];
    this.#saw(n, life);
    this.#unknown = unknown;
    this.#dropped += dropped;
    return rest;
  }

  #saw(n: string, life: string): void {
    if (Number(n) <= Number(this.#n)) return;
    this.#n = n;
    this.#life = life;
  }
}
