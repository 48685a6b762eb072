/** The senders of `examples/` in languages whose packages are small: the others are run by `deno task test:examples`. */
import { assertSends } from "../../testkit/example_run.ts";
import {
  findPhpRedis,
  hasPythonRedis,
  PHP_REDIS_MISSING,
  PYTHON,
  PYTHON_REDIS_MISSING,
} from "../../testkit/programs.ts";
import { redisTest } from "../../testkit/redis_server.ts";

redisTest("The example for redis-cli sends, and says why it can't", () => assertSends(["./send.sh"]));

for (
  const [name, program, file, missing] of [
    ["Python", hasPythonRedis() ? PYTHON : undefined, "send.py", PYTHON_REDIS_MISSING],
    ["PHP", findPhpRedis(), "send.php", PHP_REDIS_MISSING],
  ] as const
) {
  if (program === undefined) console.warn(missing);
  Deno.test({
    name: `The example for ${name} sends, and says why it can't`,
    ignore: program === undefined,
    fn: () => assertSends([program!, file]),
  });
}
