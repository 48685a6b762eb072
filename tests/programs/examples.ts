/**
 * `deno task test:examples`: the senders of `examples/` in Ruby and Go, whose packages are too large for each run of the tests.
 * As root on Debian it installs them.
 */
import { assertSends } from "../../testkit/example_run.ts";

const EXAMPLES = [
  { packages: ["ruby", "ruby-redis"], command: ["ruby", "send.rb"] },
  { packages: ["golang-go"], command: ["go", "run", "send.go"] },
];

async function installs(packages: readonly string[]): Promise<void> {
  const { success } = await new Deno.Command("apt-get", {
    args: ["install", "-y", "-q", "--no-install-recommends", ...packages],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdout: "null",
    stderr: "inherit",
  }).output().catch(() => ({ success: false }));
  if (!success) console.error(`Could not install ${packages.join(" and ")}: goes on with what is there`);
}

let failed = 0;
for (const { packages, command } of EXAMPLES) {
  if (Deno.build.os === "linux" && Deno.uid() === 0) await installs(packages);
  try {
    await assertSends(command);
    console.log(`ok      ${command.join(" ")}`);
  } catch (error) {
    failed++;
    console.error(`FAILED  ${command.join(" ")}: ${error instanceof Error ? error.message : error}`);
  }
}
Deno.exitCode = failed > 0 ? 1 : 0;
