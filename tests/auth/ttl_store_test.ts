/** The store in memory. What tickets and revocations make of both stores is in their own tests. */
import { assertEquals } from "@std/assert";
import { MemoryTtlStore } from "../../src/auth/ttl_store_memory.ts";
import { MemoryBroker } from "../../src/broker/memory.ts";
import { until } from "../../testkit/deadline.ts";

Deno.test("MemoryTtlStore ends an entry when its time is up, and sweeps it away, when the clock is set back too", async () => {
  const store = new MemoryTtlStore(new MemoryBroker());
  await store.setUnique("a", "1", 10);
  const endsMs = performance.now() + 11;
  await until(() => performance.now() >= endsMs, "its time to be up");
  const { now } = Date;
  Date.now = () => now() - 3_600_000;
  try {
    assertEquals(await store.getMany(["a"]), [undefined]);
    for (let i = 0; i < 256; i++) await store.setUnique("b", "1", 10);
    assertEquals(store.size, 1);
  } finally {
    Date.now = now;
  }
});
