/** What the engine makes of its parts where a Redis does not count its subscribers. */
import { assertEquals } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";
import { TcpProxy } from "../../testkit/tcp_proxy.ts";

const WAIT_MS = 20_000;

redisTest(
  "A Redis that does not count its subscribers is refused, unless subscriptions are shared",
  async () => {
    await using server = await RedisServer.start();
    await using elsewhere = await RedisServer.start();
    for (const subscriptions of ["dedicated", "shared"] as const) {
      await using proxy = await TcpProxy.start(server.port);
      // As where a proxy spreads connections over servers of which each counts its own: commands here, the rest there.
      proxy.turnAfter(1, elsewhere.port);
      const engine = openEngine({ redisUrl: proxy.through(server.url), subscriptions, probe: true });
      const attempt = await engine.firstAttempt(WAIT_MS);
      assertEquals(
        [attempt.outcome, "remedy" in attempt ? attempt.remedy : ""],
        subscriptions === "shared" ? ["ready", ""] : ["refused", "set USERWIRE_SUBSCRIPTIONS=shared"],
      );
      await engine.close();
    }
  },
);
