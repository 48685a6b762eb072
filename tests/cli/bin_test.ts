/** `bin/userwire`: the command as people have it, from any folder, through links, with signals and exit codes. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import manifest from "../../deno.json" with { type: "json" };
import { Bell, withDeadline } from "../../testkit/deadline.ts";

const SCRIPT = fileURLToPath(new URL("../../bin/userwire", import.meta.url));
const START_MS = 30_000;
const decoder = new TextDecoder();

/** A folder with links to the script, one of them to the other, and to Deno under its name. */
class Workplace implements AsyncDisposable {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<Workplace> {
    const dir = await Deno.makeTempDir({ prefix: "userwire bin " });
    await Deno.mkdir(`${dir}/links`);
    await Deno.mkdir(`${dir}/deno`);
    await Deno.mkdir(`${dir}/npx`);
    await Deno.symlink(SCRIPT, `${dir}/links/first`);
    await Deno.symlink("first", `${dir}/links/userwire`);
    await Deno.symlink(Deno.execPath(), `${dir}/deno/deno`);
    // npx as the script uses it: asked for a path, it must be told to run nothing.
    await Deno.writeTextFile(
      `${dir}/npx/npx`,
      `#!/bin/sh\n[ "$*" = "-y -p deno -c command -v deno" ] && echo '${Deno.execPath()}'\n`,
      { mode: 0o755 },
    );
    return new Workplace(dir);
  }

  /** @param path Where programs are looked for, beside those that every machine has. */
  command(
    args: readonly string[],
    options: { path?: string; env?: Record<string, string> } = {},
  ): Deno.Command {
    const { HOME = "", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    const { path = `${this.dir}/links:${this.dir}/deno`, env = {} } = options;
    return new Deno.Command("/bin/sh", {
      // As a shell finds it.
      args: ["-c", 'exec "$0" "$@"', "userwire", ...args],
      cwd: this.dir,
      clearEnv: true,
      env: { HOME, DENO_DIR, NO_COLOR: "1", PATH: `${path}:${this.dir}/tools`, ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
  }

  /** Puts nothing on the path but what the script itself needs. */
  async bare(): Promise<this> {
    await Deno.mkdir(`${this.dir}/tools`);
    for (const name of ["readlink", "sh"]) {
      const { stdout } = await new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).output();
      await Deno.symlink(decoder.decode(stdout).trim(), `${this.dir}/tools/${name}`);
    }
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }
}

async function end(command: Deno.Command): Promise<[code: number, stdout: string, stderr: string]> {
  const { code, stdout, stderr } = await withDeadline(command.output(), START_MS, "the command to end");
  return [code, decoder.decode(stdout), decoder.decode(stderr)];
}

Deno.test("bin/userwire answers from any folder, through links, and with nothing before the answer", async () => {
  await using workplace = await (await Workplace.make()).bare();
  assertEquals(await end(workplace.command(["--version"])), [0, `${manifest.version}\n`, ""]);
  const [code, stdout, stderr] = await end(workplace.command(["send", "alice", "two words"], {
    env: { USERWIRE_URL: "http://127.0.0.1:9" },
  }));
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^error: .*userwire serve/);
  assertEquals((await end(workplace.command(["sned"])))[0], 2);
});

Deno.test("bin/userwire works without Deno on the path when npx is there, and else says what it needs", async () => {
  await using workplace = await (await Workplace.make()).bare();
  const withNpx = workplace.command(["--version"], { path: `${workplace.dir}/links:${workplace.dir}/npx` });
  assertEquals(await end(withNpx), [0, `${manifest.version}\n`, ""]);
  const [code, stdout, stderr] = await end(
    workplace.command(["--version"], { path: `${workplace.dir}/links` }),
  );
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^error: userwire needs Deno .* npx/);
});

Deno.test("bin/userwire passes signals on, keeps its logs where it was called, and ends with the service's code", async () => {
  await using workplace = await (await Workplace.make()).bare();
  const child = workplace.command(["--port", "0", "--drain-s", "0"]).spawn();
  const bell = new Bell();
  let said = "";
  const reading = (async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      said += text;
      bell.ring();
    }
  })();
  const complaining = new Response(child.stderr).text();
  try {
    await bell.until(() => /listening/.test(said), "the service to listen", START_MS);
  } finally {
    child.kill("SIGTERM");
  }
  const { code, signal } = await withDeadline(child.status, START_MS, "the service to end");
  await reading;
  assertEquals([code, signal], [0, null]);
  for (const line of (await complaining).trim().split("\n")) assertMatch(line, / WARN /);
  assertMatch(said, /stopped/);
  const logs = [...Deno.readDirSync(`${workplace.dir}/logs`)];
  assert(logs.length === 1 && logs[0]!.name.endsWith(".log"));
});

Deno.test("bin/userwire asks for the permissions that the start task has, and no others", async () => {
  const script = (await Deno.readTextFile(SCRIPT)).replaceAll("\\\n", "");
  const flags = (text: string) => text.split(/\s+/).filter((word) => /^--(?!quiet|config)/.test(word)).sort();
  assertEquals(
    flags(script.split("\nexec ")[1]!.split(" --config ")[0]!),
    flags(manifest.tasks.start.command),
  );
});

Deno.test("bin/userwire lets glibc keep more of what was freed, unless it is told what to keep; so do the images", async () => {
  await using workplace = await (await Workplace.make()).bare();
  const path = `${workplace.dir}/links:${workplace.dir}/told`;
  await Deno.mkdir(`${workplace.dir}/told`);
  await Deno.writeTextFile(`${workplace.dir}/told/deno`, '#!/bin/sh\necho "<$GLIBC_TUNABLES>"\n', {
    mode: 0o755,
  });
  const told = async (env: Record<string, string>) => {
    const [code, stdout] = await end(workplace.command(["--version"], { path, env }));
    assertEquals(code, 0);
    return stdout.trim();
  };
  const tunables = "glibc.malloc.tcache_count=1000";
  assertEquals(await told({}), `<${tunables}>`);
  assertEquals(await told({ GLIBC_TUNABLES: "" }), "<>");
  const image = await Deno.readTextFile(new URL("../../deploy/Dockerfile", import.meta.url));
  assert(image.includes(`GLIBC_TUNABLES=${tunables}\n`));
});
