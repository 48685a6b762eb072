/** A process of several as it sees itself: its part of the limits, and what the supervisor says. */
import { assertEquals } from "@std/assert";
import { follow, settingsAt } from "../../src/processes/place.ts";
import { loadConfig } from "../../testkit/config.ts";

Deno.test("Limits of sockets and handshakes are divided and rounded up, and no limit stays none", () => {
  const config = loadConfig({
    env: {
      USERWIRE_MAX_CONNECTIONS: "10",
      USERWIRE_MAX_CONNECTIONS_PER_ADDRESS: "1",
      USERWIRE_UPGRADES_PER_SECOND: "0",
      PORT: "0",
    },
  });
  const place = { number: 2, of: 3, port: 81, opsPath: "/x" };
  assertEquals(settingsAt(place, config), {
    ...config,
    port: 81,
    maxConnections: 4,
    maxConnectionsPerAddress: 1,
    upgradesPerSecond: 0,
  });
});

Deno.test("Orders come a line each, however they are cut, and the end of the input is the order to drain", async () => {
  const said: string[] = [];
  const parts = ["rel", "oad\nre", "load\nempty\nconstructor\n\nen", "d\ndrain"];
  const input = ReadableStream.from(parts.map((part) => new TextEncoder().encode(part)));
  await follow(input, {
    reload: () => void said.push("reload"),
    empty: () => void said.push("empty"),
    drain: () => void said.push("drain"),
    end: () => void said.push("end"),
  });
  assertEquals(said, ["reload", "reload", "empty", "end", "drain"]);
});
