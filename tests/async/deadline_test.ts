/** What the tests say when they have waited in vain: for what, for how long, and what was the case instead. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import { redisTest } from "../../testkit/redis_server.ts";

redisTest("Whatever waits in vain says for what, for how long, and what was the case instead", async () => {
  const script = fileURLToPath(new URL("../../testkit/vain_waits.ts", import.meta.url));
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--lock=tests/deno.lock", "-A", script],
    cwd: new URL("../../", import.meta.url),
    env: { TEST_TIME_FACTOR: "0.005", NO_COLOR: "1" },
    stdin: "null",
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  const said: Record<string, string> = JSON.parse(new TextDecoder().decode(stdout));
  assert(Object.keys(said).length > 25);
  for (const [what, text] of Object.entries(said)) {
    assertMatch(text, /^DeadlineError: Waited (50|100|150) ms for .+, in vain: .+/s, what);
  }
  assertEquals(
    said["Truth.untilCount"],
    [
      'DeadlineError: Waited 100 ms for 2 subscriptions of "alice", in vain: there are 1',
    ].join(),
  );
  assertMatch(said["Follower.reaches"]!, /for message 7, in vain: it stands at [\w-]+\.0, with 0 messages, /);
});
