/**
 * Runs before the tests (`deno task test`): sees to it that a real redis-server, Chromium, HAProxy,
 * nginx, Python with websockets and PHP are here, and installs what is missing where it may, which is as root on Debian and its kin. One line when all is there.
 *
 * Without Redis it fails: the tests would prove little. Without one of the others only its own tests are skipped.
 * Imports no package, so that it works before any was fetched.
 */
import {
  CHROMIUM_MISSING,
  findChromium,
  findHaProxy,
  findHeadlessChromium,
  findNginx,
  findPhp,
  findPhpRedis,
  findRedisServer,
  findShell,
  HAPROXY_MISSING,
  hasPythonRedis,
  hasPythonWebsockets,
  NGINX_MISSING,
  PHP_MISSING,
  PHP_REDIS_MISSING,
  PYTHON_MISSING,
  PYTHON_REDIS_MISSING,
  REDIS_MISSING,
  SHELLS_MISSING,
} from "./programs.ts";
import { RedisServer } from "./redis_server.ts";

// redis-tools holds the server's binary but, unlike redis-server, starts no service on this machine.
const REDIS_PACKAGE = "redis-tools";
const CHROMIUM_PACKAGE = "chromium";
const HEADLESS_CHROMIUM_PACKAGE = "chromium-headless-shell";
const HAPROXY_PACKAGE = "haproxy";
// The smallest that has TLS and HTTP/2.
const NGINX_PACKAGE = "nginx-light";
const WEBSOCKETS_PACKAGE = "python3-websockets";
// Its extension curl is optional to the sender, and tried when it is there.
const PHP_PACKAGES = ["php-cli", "php-curl"];
const SHELLS = ["bash", "zsh", "fish"] as const;
const APT_GET = "/usr/bin/apt-get";
const APT_CACHE = "/usr/bin/apt-cache";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;
/** Exit code of who was ended. */
const INTERRUPTED = 130;

Deno.exitCode = await prepare();

/** @returns Exit code. */
async function prepare(): Promise<number> {
  const missing: string[] = [];
  if (findRedisServer() === undefined) missing.push(REDIS_PACKAGE);
  if (findChromium() === undefined) missing.push(CHROMIUM_PACKAGE);
  if (findHaProxy() === undefined) missing.push(HAPROXY_PACKAGE);
  if (findNginx() === undefined) missing.push(NGINX_PACKAGE);
  if (!hasPythonRedis()) missing.push("python3-redis");
  if (findPhpRedis() === undefined) missing.push("php-redis");
  if (!hasPythonWebsockets()) missing.push(WEBSOCKETS_PACKAGE);
  if (findPhp() === undefined) missing.push(...PHP_PACKAGES);
  for (const shell of SHELLS) if (findShell(shell) === undefined) missing.push(shell);
  // Without it the tests of pages only take longer, and not every system has it: the lists of packages, which may be old,
  // are not renewed for it alone.
  if (findHeadlessChromium() === undefined && (missing.length > 0 || isOnOffer(HEADLESS_CHROMIUM_PACKAGE))) {
    missing.push(HEADLESS_CHROMIUM_PACKAGE);
  }
  if (missing.length > 0 && mayInstall()) await install(missing);

  if (findRedisServer() === undefined) {
    console.error(REDIS_MISSING);
    return 1;
  }
  // Who is ended meanwhile ends the server and removes its folder first.
  let isInterrupted = false;
  const interrupt = () => void (isInterrupted = true);
  for (const signal of SIGNALS) Deno.addSignalListener(signal, interrupt);
  let version: string;
  try {
    version = await versionOfRedis();
  } catch (error) {
    console.error(
      `redis-server is installed and can't be used: ${error instanceof Error ? error.message : error}`,
    );
    return 1;
  } finally {
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, interrupt);
  }
  if (isInterrupted) return INTERRUPTED;
  const found = [`Redis ${version}`];
  if (findChromium() === undefined) console.warn(CHROMIUM_MISSING);
  else found.push("Chromium");
  if (findHaProxy() === undefined) console.warn(HAPROXY_MISSING);
  else found.push("HAProxy");
  if (findNginx() === undefined) console.warn(NGINX_MISSING);
  else found.push("nginx");
  if (!hasPythonRedis()) console.warn(PYTHON_REDIS_MISSING);
  else found.push("redis-py");
  if (findPhpRedis() === undefined) console.warn(PHP_REDIS_MISSING);
  else found.push("php-redis");
  if (!hasPythonWebsockets()) console.warn(PYTHON_MISSING);
  else found.push("Python");
  if (findPhp() === undefined) console.warn(PHP_MISSING);
  else found.push("PHP");
  if (SHELLS.every((shell) => findShell(shell) !== undefined)) found.push("shells");
  else console.warn(SHELLS_MISSING);
  console.log(`${found.join(", ")} for the tests: ready`);
  return 0;
}

/** What a server says that was started for it. */
async function versionOfRedis(): Promise<string> {
  await using redis = await RedisServer.start();
  return /redis_version:(\S+)/.exec(String(await redis.cli("INFO", "server")))?.[1] ?? "of unknown version";
}

function mayInstall(): boolean {
  if (Deno.build.os !== "linux" || Deno.uid() !== 0) return false;
  try {
    return Deno.statSync(APT_GET).isFile;
  } catch {
    return false;
  }
}

/** Whether the lists of packages that this machine has, have this one. */
function isOnOffer(name: string): boolean {
  try {
    const { success } = new Deno.Command(APT_CACHE, {
      args: ["-q", "show", name],
      stdout: "null",
      stderr: "null",
    })
      .outputSync();
    return success;
  } catch {
    return false; // no Debian
  }
}

/** Says what went wrong and returns all the same: what is still missing is found by looking. */
async function install(packages: readonly string[]): Promise<void> {
  console.log(`Installing ${packages.join(", ")} for the tests: this takes a minute`);
  // An old list may still do when it can't be renewed, so the failure of the first is no reason not to try.
  await aptGet(["update"]);
  // One at a time: a Chromium that can't be had must not keep Redis away.
  for (const name of packages) await aptGet(["install", "-y", "--no-install-recommends", name]);
}

async function aptGet(args: readonly string[]): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(APT_GET, {
    args: ["-q", "-o", "DPkg::Lock::Timeout=120", ...args],
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
  }).output();
  if (success) return;
  const decoder = new TextDecoder();
  // apt marks what matters; all of its output only when it marked nothing.
  const lines = (decoder.decode(stdout) + decoder.decode(stderr)).trim().split("\n");
  const errors = lines.filter((line) => /^(E|W|Err|dpkg):? ?/.test(line));
  console.error(`"apt-get ${args.join(" ")}" failed:`);
  for (const line of errors.length > 0 ? errors : lines) console.error(`  ${line}`);
}
