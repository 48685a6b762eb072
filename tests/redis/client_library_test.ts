/** How clients of the library are made. */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { type Client, load, newClient } from "../../src/redis/client_library.ts";
import type { RedisAddress } from "../../src/redis/address.ts";

await load();

function clientOf(address: Partial<RedisAddress>): Client {
  return newClient(
    { transport: "tcp", hostname: "127.0.0.1", port: 1, database: 0, ...address } as RedisAddress,
  );
}

Deno.test("Clients for any number of addresses are of one class, whose making takes long", () => {
  const clients = [{ port: 1 }, { port: 2 }, { port: 1, database: 3 }].map(clientOf);
  const [first, ...others] = clients.map(Object.getPrototypeOf);
  assert(first !== Object.prototype);
  for (const other of others) assertStrictEquals(other, first);
});

Deno.test("A client has its own address and login, and nothing of the one before", () => {
  clientOf({ port: 1, username: "ann", password: "secret", database: 3 });
  const { options } = clientOf({ hostname: "inside.invalid", port: 2 });
  const { host, port } = options.socket as { host: string; port: number };
  assertEquals([host, port, options.database], ["inside.invalid", 2, 0]);
  assertEquals([options.username, options.password, options.credentialsProvider], [
    undefined,
    undefined,
    undefined,
  ]);
  assertEquals([options.RESP, options.commandOptions?.timeout, options.disableOfflineQueue], [2, 0, true]);
});
