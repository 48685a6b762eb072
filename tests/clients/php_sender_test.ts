/**
 * The PHP sender with a real service and with a server that misbehaves: by PHP's own streams, and by curl where that
 * extension is. One process of each runs all checks. Other versions of PHP run them in `deno task test:packages`.
 */
import { PhpChecks } from "../../testkit/php_checks.ts";
import { findPhp } from "../../testkit/programs.ts";

const php = findPhp();

Deno.test({
  name: "The PHP sender, with a service and with a server that misbehaves",
  ignore: php === undefined,
  async fn(t) {
    await using checks = await PhpChecks.start();
    // Without its settings PHP loads no extension.
    await checks.run(t, "streams", [php!, "-n"]);
    await checks.run(t, "curl", [php!]);
  },
});
