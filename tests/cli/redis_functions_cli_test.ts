/** `userwire redis-functions`: what it prints and its exit codes, on one Redis and on a cluster. */
import { assertEquals, assertMatch } from "@std/assert";
import { Terminal } from "../../testkit/cli_terminal.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { RedisServer, redisTest } from "../../testkit/redis_server.ts";

async function functions(args: string[], env: Record<string, string> = {}) {
  const io = new Terminal();
  return { code: await io.run(["redis-functions", ...args], env), out: io.stdout, err: io.stderr };
}

redisTest("userwire redis-functions loads, checks and prints", async () => {
  await using redis = await RedisServer.start();
  const env = { REDIS_URL: redis.url };
  const missing = await functions(["check"], env);
  assertEquals([missing.code, missing.out], [1, "not loaded: run userwire redis-functions load\n"]);
  assertEquals(await functions(["load"], env), {
    code: 0,
    out: "loaded: 1 0.1.0 100 300000 65536\n",
    err: "",
  });
  assertEquals((await functions(["check"], env)).code, 0);
  const other = await functions(["check", "--history", "7"], env);
  assertEquals(other.code, 1);
  assertMatch(
    other.out,
    /^loaded, but older or for other settings: 1 0\.1\.0 100 .*; run userwire redis-functions load\n$/,
  );

  // What is printed is what is loaded; older ones are found out, newer ones left.
  const { out: text } = await functions(["print"]);
  assertEquals(
    (await redis.cli("FUNCTION", "LIST", "WITHCODE") as string[][])[0]!.at(-1),
    text.trimEnd() + "\n",
  );
  const as = (version: string) => text.replace("VERSION = '1 0.1.0", `VERSION = '${version}`);
  await redis.cli("FUNCTION", "LOAD", "REPLACE", as("1 0.0.9"));
  assertEquals((await functions(["check"], env)).code, 1);
  await redis.cli("FUNCTION", "LOAD", "REPLACE", as("1 0.2.0"));
  assertEquals((await functions(["check"], env)).code, 0);
  assertEquals((await functions(["load"], env)).out, "loaded: 1 0.2.0 100 300000 65536\n");

  const { out: script } = await functions(["print", "--eval"]);
  const reply = await redis.cli("EVAL", script, "1", "userwire:{alice}", '{"order":7}') as unknown[];
  assertEquals(reply.slice(0, 2), [0, 1]);
});

redisTest("userwire redis-functions loads on every master of a cluster", async () => {
  await using cluster = await ClusterSet.start();
  const env = { REDIS_URL: cluster.url };
  const { code, out } = await functions(["load"], env);
  assertEquals([code, out.match(/^127\.0\.0\.1:\d+: loaded: 1 0\.1\.0 /gm)?.length], [0, 3], out);
  await cluster.nodes[1]!.server.cli("FUNCTION", "FLUSH");
  const checked = await functions(["check"], env);
  assertEquals([checked.code, checked.out.match(/: not loaded/g)?.length], [1, 1], checked.out);
  assertMatch((await functions(["print", "--cluster"])).out, /SPUBLISH/);
});

redisTest("userwire redis-functions says what keeps it from it", async () => {
  assertMatch((await functions(["load"])).err, /REDIS_URL is not set/);
  using port = OwnPort.take();
  const away = await functions(["check"], {
    REDIS_URL: `redis://127.0.0.1:${port.number}`,
    USERWIRE_REDIS_TIMEOUT_MS: "300",
  });
  assertEquals(away.code, 1);
  assertMatch(away.err, /nobody listens there/);
  assertMatch((await functions(["print", "--eval", "--cluster"])).err, /a cluster has functions/);
  await using redis = await RedisServer.start();
  await redis.cli("ACL", "SETUSER", "default", "-function|load");
  const refused = await functions(["load"], { REDIS_URL: redis.url });
  assertEquals(refused.code, 1);
  assertMatch(refused.out, /\+function\|load/);
});
