/**
 * Sends to users of Userwire straight through Redis, from Node 20 or newer; the package `redis` has to be installed
 * beside it.
 *
 *     import { Publisher } from "userwire/publisher";
 *
 *     const publisher = await Publisher.open({ redisUrl: "redis://127.0.0.1:6379" });
 *     const { sockets } = await publisher.send("alice", { order: 7 });
 *     await publisher.close();
 */
export * from "../../src/publisher/mod.ts";
export {
  BrokerUnavailableError,
  ConfigError,
  IdempotencyConflictError,
  InvalidMessageError,
  InvalidUsernameError,
  UserOfflineError,
} from "../../src/protocol/errors.ts";
