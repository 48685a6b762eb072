/** What the engine makes of its parts where a Redis does not count its subscribers. */
import { assertEquals } from "@std/assert";
import { openEngine } from "../../src/engine/engine.ts";
import { until } from "../../testkit/deadline.ts";
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
      const engine = openEngine({ redisUrl: proxy.through(server.url), subscriptions, probe: true });
      // As where a proxy spreads connections over servers of which each counts its own.
      await until(() => engine.redis!.reason === undefined, "Redis to be there", WAIT_MS);
      proxy.turn(elsewhere.port);
      const attempt = await engine.firstAttempt(WAIT_MS);
      assertEquals(
        [attempt.outcome, "remedy" in attempt ? attempt.remedy : ""],
        subscriptions === "shared" ? ["ready", ""] : ["refused", "set USERWIRE_SUBSCRIPTIONS=shared"],
      );
      await engine.close();
    }
  },
);
