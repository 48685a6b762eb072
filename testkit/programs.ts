/**
 * Where the real programs are that the tests run against. Only looks, installs nothing (`prepare.ts` does), and
 * imports nothing, so that it works before any package was fetched.
 *
 * Redis is one binary with several names: what Debian's `redis-tools` calls `redis-check-rdb` is the server when
 * it is started under the name `redis-server`. That package starts no service, so it is the one to have.
 */

/** Path of a binary that serves Redis when it is started under the name `redis-server`; undefined when none is here. */
export function findRedisServer(): string | undefined {
  return findProgram("redis-server") ?? findProgram("redis-check-rdb");
}

/** Path of a Chromium, also under the names other systems give it; undefined when none is here. */
export function findChromium(): string | undefined {
  return findProgram("chromium") ?? findProgram("chromium-browser") ?? findProgram("google-chrome");
}

/** Path of HAProxy; undefined when it is not here. */
export function findHaProxy(): string | undefined {
  return findProgram("haproxy");
}

/** Path of nginx; undefined when it is not here. */
export function findNginx(): string | undefined {
  return findProgram("nginx");
}

/** Path of a Python that has redis-py, as Debian installs both; undefined when it is not here. */
export function findPythonRedis(): string | undefined {
  return isThere("/usr/lib/python3/dist-packages/redis") && isThere("/usr/bin/python3")
    ? "/usr/bin/python3"
    : undefined;
}

/** Path of a PHP that has the extension `redis`, as Debian installs both; undefined when it is not here. */
export function findPhpRedis(): string | undefined {
  const php = findProgram("php");
  if (php === undefined || !isThere("/usr/lib/php")) return undefined;
  const folders = [...Deno.readDirSync("/usr/lib/php")].map(({ name }) => `/usr/lib/php/${name}/redis.so`);
  return folders.some(isThere) ? php : undefined;
}

/** What to tell somebody who has no Redis. */
export const REDIS_MISSING =
  "The tests need redis-server: install it (Debian and Ubuntu: apt-get install redis-tools; macOS: brew install redis)";

/** What to tell somebody who has no Chromium. */
export const CHROMIUM_MISSING =
  "The test of the console page is skipped: it needs Chromium (Debian: apt-get install chromium)";

/** What to tell somebody who has no HAProxy. */
export const HAPROXY_MISSING =
  "The tests behind HAProxy are skipped: they need version 2.5 or newer (Debian: apt-get install haproxy)";

/** What to tell somebody who has no nginx. */
export const NGINX_MISSING =
  "The tests behind nginx are skipped: they need version 1.18 or newer (Debian: apt-get install nginx-light)";

/** What to tell somebody who has no Python with redis-py. */
export const PYTHON_REDIS_MISSING =
  "The test of the example in Python is skipped: it needs redis-py (Debian: apt-get install python3-redis)";

/** What to tell somebody who has no PHP with its extension for Redis. */
export const PHP_REDIS_MISSING =
  "The test of the example in PHP is skipped: it needs php and php-redis (Debian: apt-get install php-cli php-redis)";

function isThere(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function findProgram(name: string): string | undefined {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (folder === "") continue;
    const path = `${folder}/${name}`;
    try {
      const { isFile, mode } = Deno.statSync(path);
      if (isFile && ((mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not in this folder, or not ours to look at: the next one may have it.
    }
  }
  return undefined;
}
