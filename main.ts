/**
 * The program: arguments and environment in, exit code out. Nothing else in this project ends the process.
 */
import { run } from "./src/cli/cli.ts";

if (import.meta.main) Deno.exit(await run(Deno.args, Deno.env.toObject()));
