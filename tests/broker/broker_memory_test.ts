import { MemoryBroker } from "../../src/broker/memory.ts";
import { brokerContract } from "../contracts/broker.ts";

brokerContract("MemoryBroker", () => {
  const broker = new MemoryBroker();
  return Promise.resolve({ broker, dispose: () => broker.close() });
});
