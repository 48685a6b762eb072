/** Runs a sender of `examples/` as a stranger would, against a Redis that has the functions. */
import { assertEquals, assertMatch } from "@std/assert";
import { functionLibrary } from "../src/history/function_library.ts";
import { PLAIN } from "../src/redis/pubsub_words.ts";
import { RedisServer } from "./redis_server.ts";

const FOLDER = new URL("../examples/", import.meta.url);

/**
 * @param command The program, and what comes before username and payload.
 * @throws {AssertionError} when it does not send, or does not say why it can't.
 */
export async function assertSends(command: readonly string[]): Promise<void> {
  await using redis = await RedisServer.start({ password: "s3cret" });
  await redis.cli("FUNCTION", "LOAD", functionLibrary(PLAIN, { count: 5, ttlMs: 60_000, maxBytes: 1_000 }));
  const [program, ...args] = command as [string, ...string[]];
  const run = async (payload: string) => {
    const { code, stdout, stderr } = await new Deno.Command(program, {
      args: [...args, "alice", payload],
      cwd: FOLDER,
      // redis-cli wants the user's name, too.
      env: { REDIS_URL: redis.url.replace("//:", "//default:") },
      stdin: "null",
    }).output();
    const decoder = new TextDecoder();
    return { code, said: decoder.decode(stdout) + decoder.decode(stderr) };
  };
  const sent = await run('{"order":7}');
  assertEquals([sent.code, /\b1\b/.test(sent.said)], [0, true], sent.said);
  const [[, [, envelope]]] = await redis.cli("XRANGE", "userwire:{alice}:inbox", "-", "+") as [
    [string, [string, string]],
  ];
  assertMatch(envelope, /"seq":1,.*"data":\{"order":7\}\}$/);
  const refused = await run("[01]");
  assertEquals(refused.code, 1, refused.said);
  assertMatch(refused.said, /INVALID the payload is not JSON/);
}
