/** Picks the store of events: beside what the broker counts. */
import type { Broker } from "../broker/broker.ts";
import type { Scripts } from "../redis/commands.ts";
import { channelOf } from "../protocol/username.ts";
import type { EventStore, EventStoreOptions } from "./events.ts";
import { MemoryEventStore } from "./memory_store.ts";
import { RedisEventStore } from "./redis_store.ts";

interface Where {
  readonly broker: Pick<Broker, "counts" | "counted">;
  /** Undefined in memory. */
  readonly redis: Scripts | undefined;
}

/** Opens at once. @param options.node Name of this node. @param options.channelPrefix What precedes usernames in channels. */
export function openEventStore(
  { broker, redis }: Where,
  options: Omit<EventStoreOptions, "counts" | "counted"> & { node: string; channelPrefix: string },
): EventStore {
  const { channelPrefix } = options;
  const counts = (users: readonly string[]) =>
    broker.counts(users.map((user) => channelOf(user, channelPrefix)));
  const all = { ...options, counts, counted: broker.counted };
  return redis ? new RedisEventStore(redis, all) : new MemoryEventStore(all);
}
