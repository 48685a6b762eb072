/**
 * Where the real programs are that the tests run against. Only looks, installs nothing (`prepare.ts` does), and
 * imports nothing, so that it works before any package was fetched.
 *
 * `REDIS_SERVER` names another server to test with, such as Valkey's; else it is looked for in `PATH`.
 *
 * Redis is one binary with several names: what Debian's `redis-tools` calls `redis-check-rdb` is the server when
 * it is started under the name `redis-server`. That package starts no service, so it is the one to have.
 */

/** Path of a binary that serves Redis when it is started under the name `redis-server`; undefined when none is here. */
export function findRedisServer(): string | undefined {
  return Deno.env.get("REDIS_SERVER") ?? findProgram("redis-server") ?? findProgram("redis-check-rdb");
}

/** Path of a Chromium, also under the names other systems give it; undefined when none is here. */
export function findChromium(): string | undefined {
  return findProgram("chromium") ?? findProgram("chromium-browser") ?? findProgram("google-chrome");
}

/** Path of a shell; undefined when it is not here. */
export function findShell(name: "bash" | "zsh" | "fish"): string | undefined {
  return findProgram(name);
}

/** Path of the Chromium that is built to have no window; undefined when it is not here. */
export function findHeadlessChromium(): string | undefined {
  return findProgram("chromium-headless-shell");
}

/** Path of HAProxy; undefined when it is not here. */
export function findHaProxy(): string | undefined {
  return findProgram("haproxy");
}

/** Path of nginx; undefined when it is not here. */
export function findNginx(): string | undefined {
  return findProgram("nginx");
}

/** The Python that Debian's packages for Python belong to; another one may come first on the path. */
export const PYTHON = "/usr/bin/python3";
/** Where Debian's package puts websockets. */
const WEBSOCKETS = "/usr/lib/python3/dist-packages/websockets";

/** Whether there is that Python. */
export function hasPython(): boolean {
  return isFile(PYTHON);
}

/** Whether there is a Python that has the package websockets. */
export function hasPythonWebsockets(): boolean {
  return isFile(PYTHON) && isFile(`${WEBSOCKETS}/__init__.py`);
}

/** Path of PHP; undefined when it is not here. */
export function findPhp(): string | undefined {
  return findProgram("php");
}

/** Whether that Python has redis-py. */
export function hasPythonRedis(): boolean {
  return isFile(PYTHON) && isFile("/usr/lib/python3/dist-packages/redis/__init__.py");
}

/** Path of a PHP that has the extension `redis`, as Debian installs both; undefined when it is not here. */
export function findPhpRedis(): string | undefined {
  const php = findPhp();
  if (php === undefined || !isFolder("/usr/lib/php")) return undefined;
  const extensions = [...Deno.readDirSync("/usr/lib/php")].map(({ name }) => `/usr/lib/php/${name}/redis.so`);
  return extensions.some(isFile) ? php : undefined;
}

/** What to tell somebody who has no Redis. */
export const REDIS_MISSING =
  "The tests need redis-server: install it (Debian and Ubuntu: apt-get install redis-tools; macOS: brew install redis)";

/** What to tell somebody who has no Chromium. */
export const CHROMIUM_MISSING =
  "The test of the console page is skipped: it needs Chromium (Debian: apt-get install chromium)";

/** What to tell somebody who has not all shells. */
export const SHELLS_MISSING =
  "Tests of completions are skipped: they need bash, zsh and fish (Debian: apt-get install zsh fish)";

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

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** What to tell somebody who has no Python with websockets. */
export const PYTHON_MISSING =
  `The tests of the Python client are skipped: they need ${PYTHON} with websockets (Debian: apt-get install python3-websockets)`;

/** What to tell somebody who has no PHP. */
export const PHP_MISSING =
  "The tests of the PHP sender are skipped: they need PHP 7.4 or newer (Debian: apt-get install php-cli php-curl)";

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** Where systems have programs for administrators, HAProxy and nginx among them: not on everybody's path. */
const ADMIN_FOLDERS = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

export function findProgram(name: string): string | undefined {
  for (const folder of [...(Deno.env.get("PATH") ?? "").split(":"), ...ADMIN_FOLDERS]) {
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
