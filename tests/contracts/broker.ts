/**
 * What every broker must do: the guarantees of `src/broker/broker.ts`, each with at least one test. What holds
 * only behind a server that comes and goes is in `redis_broker.ts`.
 *
 *     brokerContract("MemoryBroker", () => {
 *       const broker = new MemoryBroker();
 *       return Promise.resolve({ broker, dispose: () => broker.close() });
 *     });
 */
import { withDeadline } from "../../testkit/deadline.ts";
import { closingContract } from "./broker_closing.ts";
import { deliveryContract } from "./broker_delivery.ts";
import type { BrokerUnderTest, DeclareTest } from "./broker_under_test.ts";

const TEST_MS = 30_000;

/**
 * Declares the tests.
 * @param name Name of the implementation; each test's name begins with it.
 * @param open Called for each test. A fresh server behind it is not needed, a fresh broker is.
 * @param options.test How the tests are declared, such as `redisTest`. @default Deno.test
 */
export function brokerContract(
  name: string,
  open: () => Promise<BrokerUnderTest>,
  options: { readonly test?: (name: string, fn: () => Promise<void>) => void } = {},
): void {
  const declare = options.test ?? Deno.test;
  const test: DeclareTest = (claim, body) =>
    declare(`${name} ${claim}`, async () => {
      const opened = await open();
      try {
        await withDeadline(body(opened, `test-${crypto.randomUUID()}`), TEST_MS, "the test to end");
      } finally {
        await opened.dispose();
      }
    });
  deliveryContract(test);
  closingContract(test);
}
