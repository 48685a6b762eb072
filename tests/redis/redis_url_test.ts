/** URLs that name several nodes of one cluster: how they may be written, what is read, and what is refused. */
import { assertEquals, assertThrows } from "@std/assert";
import { databaseFault, isRedisUrl, parseRedisUrl } from "../../src/redis/address.ts";

const SEEDS = [{ hostname: "a", port: 1 }, { hostname: "b", port: 6_379 }, { hostname: "::1", port: 3 }];

Deno.test("Several nodes of a cluster are read, as hosts or as whole URLs with one login", () => {
  for (
    const [login, username, password] of [
      ["", undefined, undefined],
      [":p%40w@", undefined, "p@w"],
      ["user@", "user", undefined],
      ["user:p,w:x@", "user", "p,w:x"],
    ] as const
  ) {
    for (const [scheme, transport] of [["redis", "tcp"], ["RediSS", "tls"]] as const) {
      const start = `${scheme}://${login}`;
      for (
        const list of [
          "a:1,b,[::1]:3",
          "a:1,b,[::1]:3/",
          `a:1,${start}b,${start}[::1]:3`,
          `a:1,${start}b,[::1]:3`,
        ]
      ) {
        const url = start + list;
        assertEquals(isRedisUrl(url), true, url);
        const { path: _, ...read } = parseRedisUrl(url);
        assertEquals(
          read,
          { transport, hostname: "a", port: 1, username, password, database: 0, seeds: SEEDS },
          url,
        );
      }
    }
  }
});

Deno.test("A URL of one host names no nodes, whatever stands in its password", () => {
  for (
    const url of [
      "redis://a:1",
      "redis://a,u:p@b",
      "redis://:p,w@a:1/2",
      "rediss://u,v:p,w@a:1",
      "unix:///a,b.sock",
    ]
  ) {
    assertEquals([isRedisUrl(url), parseRedisUrl(url).seeds], [true, undefined], url);
  }
  assertEquals(parseRedisUrl("redis://:p,w@a:1/2").password, "p,w");
});

Deno.test("Several nodes are refused with a database, two logins, or anything that is no host", () => {
  for (
    const url of [
      ...["redis://a:1,b:2/0", "redis://a:1,b:2/1", "redis://a,b/1", "redis://a,b/0"], // a cluster has one database
      ...["redis://a,b?db=1", "redis://a,b#x"],
      ...[
        "redis://u:p@a,redis://u:q@b",
        "redis://u:p@a,redis://b",
        "redis://a,redis://u:p@b",
      ],
      "redis://:Secret@a,redis://:secret@b",
      ...["redis://a,rediss://b", "rediss://a,redis://b"],
      ...["redis://a,,b", "redis://a,b,", "redis://,a", "redis://a,b:", "redis://a:99999,b", "redis://a,b:x"],
      ...["redis://a, b", "redis://a,[::1", "redis://a,::1"],
      ...["unix://a,b"],
    ]
  ) {
    assertEquals(isRedisUrl(url), false, url);
  }
  // The library, which is not as strict, says how they are written, and shows nothing of what was given.
  for (const url of ["redis://:secret@a,b/1", "redis://:secret@a:1,b:2/1", "redis://:secret@a,redis://b"]) {
    assertThrows(
      () => parseRedisUrl(url),
      TypeError,
      "with several nodes of a cluster, as redis://[[user]:password@]host[:port],host[:port]",
    );
  }
  for (const url of ["redis://:secret@a:99999,b", "redis://a,b:x"]) {
    const { message } = assertThrows(() => parseRedisUrl(url), TypeError);
    assertEquals(
      message,
      "The Redis URL can't be read: its hosts must be names or addresses, each with a port or without",
    );
  }
});

Deno.test("Nodes of a cluster are shared with another installation by a prefix, as database 0 of one Redis", () => {
  assertEquals(databaseFault(parseRedisUrl("redis://a,b"), ""), undefined);
});
