/**
 * The package in the hands of those who install it, `deno task test:packages`: its tarball in a new project of Vite's
 * template with the files of examples/vite_react, in Next.js, with several compilers, in several Nodes and Bun; and the
 * clients for PHP and Python in what else they are for. Everything comes from npm.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { fileURLToPath } from "node:url";
import manifest from "../../deno.json" with { type: "json" };
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Browser, Page } from "../packages/playwright.ts";
import { CLOSED, KEY, SECRET } from "../../testkit/closed.ts";
import { stretched, until } from "../../testkit/deadline.ts";
import { done, NpmPackage, run } from "../../testkit/npm_package.ts";
import { OwnPort } from "../../testkit/own_port.ts";
import { findProgram } from "../../testkit/programs.ts";
import { PHP_CHECKS, PhpChecks } from "../../testkit/php_checks.ts";
import { ClusterSet } from "../../testkit/redis_cluster.ts";
import { SentinelSet } from "../../testkit/redis_sentinel.ts";
import { RedisServer } from "../../testkit/redis_server.ts";
import { blocksIn, readPage } from "../../testkit/pages.ts";
import { Service } from "../../testkit/service.ts";
import { type TypedProject, writeTypedProject } from "../../testkit/typed_project.ts";
import { TempFolder } from "../../testkit/temp_folder.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SLOW = { ms: 400_000 };
const INSTALL = ["install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"];

const npm = await NpmPackage.build();
Deno.test.afterAll(() => npm[Symbol.asyncDispose]());

/** A program that runs until the test ends. */
class Running implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reading: Promise<unknown>;
  output = "";

  constructor(command: string, args: string[], cwd: string, env: Record<string, string> = {}) {
    this.#child = new Deno.Command(command, {
      ...{ args, cwd, env: { NO_COLOR: "1", ...env } },
      ...{ stdin: "null", stdout: "piped", stderr: "piped", detached: true },
    }).spawn();
    const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) this.output += text;
    };
    this.#reading = Promise.all([read(this.#child.stdout), read(this.#child.stderr)]);
  }

  says(pattern: RegExp): Promise<void> {
    return until(() => pattern.test(this.output), `${pattern}`, 60_000, () => this.output);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      Deno.kill(-this.#child.pid, "SIGKILL"); // the group: npm starts what it runs as a child
    } catch {
      // It has ended by itself.
    }
    await this.#reading;
    await this.#child.status;
  }
}

async function launch(): Promise<Browser> {
  assert(!isBrowserMissing, "Chromium is missing");
  return await launchBrowser();
}

/** Logs in as alice. @returns The page, whose errors fail the test. */
async function logIn(browser: Browser, url: string, faults: string[]): Promise<Page> {
  const page = await browser.newPage();
  page.setDefaultTimeout(stretched(20_000));
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(url);
  await page.getByPlaceholder("Who are you?").fill("alice");
  await page.getByRole("button", { name: "Log in" }).click();
  return page;
}

Deno.test("A new project of Vite, React and TypeScript with login: built, developed, and refused with a reason", async (t) => {
  const folder = `${npm.folder}/vite`;
  await done("npx", ["-y", "create-vite@9.3.0", "vite", "--template", "react-ts", "--no-interactive"], {
    cwd: npm.folder,
    ...SLOW,
  });
  await done("npm", [...INSTALL, npm.tarball], { cwd: folder, ...SLOW });
  for (const path of ["src/App.tsx", "vite.config.ts", "backend.mjs"]) {
    await Deno.copyFile(`${ROOT}examples/vite_react/${path}`, `${folder}/${path}`);
  }
  using backendPort = OwnPort.take();
  using devPort = OwnPort.take();
  using previewPort = OwnPort.take();
  const url = (port: OwnPort) => `http://127.0.0.1:${port}`;
  await using service = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: url(previewPort) });
  const env = {
    ...{ BACKEND: url(backendPort), PORT: `${backendPort}`, VITE_USERWIRE: service.server.url.slice(0, -1) },
    ...{ USERWIRE_JWT_SECRET: SECRET, USERWIRE_KEY: KEY.key, USERWIRE_URL: service.server.url },
  };
  await t.step("is type-checked and built", async () => {
    await done("npm", ["run", "build"], { cwd: folder, env, ...SLOW });
    for await (const { name } of Deno.readDir(`${folder}/dist/assets`)) {
      if (!name.endsWith(".js")) continue;
      const text = await Deno.readTextFile(`${folder}/dist/assets/${name}`);
      assertEquals(
        text.match(/__vite-browser-external|\bBuffer\.from\b/g),
        null,
        "nothing was made up for a browser",
      );
    }
  });
  await using backend = new Running("node", ["backend.mjs"], folder, env);
  await backend.says(/^http:/m);
  await using browser = await launch();
  const vite = `${folder}/node_modules/vite/bin/vite.js`;
  const faults: string[] = [];

  await t.step("logs in, gets its messages, and says where it may not connect", async () => {
    const options = ["--host", "127.0.0.1", "--strictPort", "--port"];
    await using preview = new Running("node", [vite, "preview", ...options, `${previewPort}`], folder, env);
    await preview.says(/http:/);
    const page = await logIn(browser, url(previewPort), faults);
    await page.getByText("alice is open").waitFor();
    await page.getByRole("button", { name: "Order something" }).click();
    await page.getByText("order 1").waitFor();
    await page.getByRole("button", { name: "Log out" }).click();
    await service.isEmpty();
    await page.close();
  });

  await t.step("is refused for its origin while it is developed, and told what to set", async () => {
    const options = ["--host", "127.0.0.1", "--strictPort", "--port"];
    await using dev = new Running("node", [vite, ...options, `${devPort}`], folder, env);
    await dev.says(/http:/);
    const refused = await logIn(browser, url(devPort), faults);
    const alert = refused.getByRole("alert");
    await alert.waitFor();
    assertMatch(
      await alert.innerText(),
      new RegExp(`pages of ${url(devPort)}: add that to USERWIRE_ALLOWED_ORIGINS`),
    );
    const [line] = service.logged("handshake refused");
    assertMatch(JSON.stringify(line), new RegExp(`"origin":"${url(devPort)}".*USERWIRE_ALLOWED_ORIGINS`));
    await refused.close();
  });

  await t.step("has one socket in StrictMode, and keeps it", async () => {
    await using open = await Service.start({ ...CLOSED, USERWIRE_ALLOWED_ORIGINS: url(devPort) });
    const options = ["--host", "127.0.0.1", "--strictPort", "--port"];
    const its = { ...env, VITE_USERWIRE: open.server.url.slice(0, -1) };
    await using dev = new Running("node", [vite, ...options, `${devPort}`], folder, its);
    await dev.says(/http:/);
    const page = await logIn(browser, url(devPort), faults);
    await page.getByText("alice is open").waitFor();
    await open.fetch("/v1/users/alice/messages", {
      ...{ method: "POST", body: '{"order": 7}' },
      headers: { authorization: `Bearer ${KEY.key}`, "content-type": "application/json" },
    }).then((answer) => answer.body?.cancel());
    await page.getByText("order 7").waitFor();
    assertEquals(open.logged("connection opened").length, 1);
    assertEquals(open.logged("connection closed").length, 0);
    await page.close();
  });
  assertEquals(faults, []);
});

Deno.test("Getting started leads from nothing to a message in a page with login", async () => {
  using folder = new TempFolder("walk");
  const project = `${folder}/userwire`;
  const copy =
    `mkdir ${project} && cd ${ROOT} && tar -c --exclude=.git --exclude=dist --exclude=logs . | tar -x -C ${project}`;
  await done("sh", ["-euc", `${copy} && mkdir ${project}/logs`]);
  const blocks = blocksIn(await readPage("docs/getting_started.md"), "docs/getting_started.md");
  const [build, serve, login, show] = blocks.filter(({ reason }) => reason?.includes("test:packages"));
  const makeKeys = blocks.find(({ text }) => text.includes("key new"));
  assert(build && serve && login && show && makeKeys);
  const ports = new Map(["8765", "3000", "5173"].map((port) => [port, OwnPort.take()]));
  /** As it stands on the page, but for ports that others may have. */
  const own = (text: string) => text.replaceAll(/\b(?:8765|3000|5173)\b/g, (port) => `${ports.get(port)}`);
  const shell = (text: string) => ["-euc", own(text)];
  // Somebody who has never used any of it: nothing is there that was fetched before.
  const home = `${folder}/home`;
  await Deno.mkdir(home);
  const nobody = { HOME: home, DENO_DIR: `${home}/.cache/deno`, npm_config_cache: `${home}/.npm` };
  const startedMs = performance.now();
  await done("sh", shell(makeKeys.text), { cwd: project, env: nobody, ...SLOW });
  await done("sh", shell(build.text), { cwd: project, env: nobody, ...SLOW });
  const [service, backend, page] = ["8765", "3000", "5173"].map((port) => `${ports.get(port)}`) as [
    string,
    string,
    string,
  ];
  const url = `http://127.0.0.1:${service}`;
  {
    await using serving = new Running(
      "sh",
      shell(`exec env PORT=${service} sh -euc '${quoted(serve.text)}'`),
      project,
      nobody,
    );
    await serving.says(/listening/);
    const its = { ...nobody, USERWIRE_URL: url, PORT: backend };
    await using logging = new Running("sh", shell(login.text), project, its);
    await logging.says(/^http:/m);
    const dev = `${show.text.trim()} -- --port ${page} --strictPort`;
    await using showing = new Running("sh", shell(`exec ${dev}`), project, {
      ...nobody,
      VITE_USERWIRE: url,
      BACKEND: `http://127.0.0.1:${backend}`,
    });
    await showing.says(/http:/);
    await using browser = await launch();
    const faults: string[] = [];
    const tab = await logIn(browser, `http://localhost:${page}`, faults);
    await tab.getByText("alice is open").waitFor();
    await tab.getByRole("button", { name: "Order something" }).click();
    await tab.getByText("order 1").waitFor();
    assertEquals(faults, []);
  }
  console.log(`From nothing to a message: ${Math.round((performance.now() - startedMs) / 1_000)} s`);
  for (const port of ports.values()) port[Symbol.dispose]();
});

Deno.test("JSR would take the package, with its exports and without its tests", async () => {
  const { code, stdout, stderr } = await run(Deno.execPath(), ["publish", "--dry-run", "--allow-dirty"], {
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  });
  assertEquals(code, 0, stderr);
  const files = Array.from(
    (stdout + stderr).matchAll(/^ +file:\/\/(\S+) \(/gm),
    ([, path]) => path!.slice(ROOT.length),
  );
  for (const path of Object.values(manifest.exports)) assert(files.includes(path.slice(2)), path);
  assertEquals(files.filter((path) => !/^(src|clients\/npm|links\/std_log)\/|^[^/]+$/.test(path)), []);
  assertEquals(stderr.match(/^(warning|error)\b.*/gm), null);
});

function quoted(text: string): string {
  return text.replaceAll("'", "'\\''");
}

const mypy = findProgram("mypy");

Deno.test({
  name: "The Python client is typed: mypy has nothing against it (Debian: apt-get install mypy)",
  ignore: mypy === undefined,
  async fn() {
    const cache = `${npm.folder}/mypy`;
    await done(mypy!, ["--strict", "--cache-dir", cache, `${ROOT}clients/python/userwire.py`], SLOW);
  },
});

const NEXT_PAGE = `"use client";
import { useMessages, useUserwire } from "userwire/react";
export default function Page() {
  const { state } = useUserwire("http://127.0.0.1:8765", { user: "alice" });
  return <p>{state} {useMessages().length}</p>;
}
`;

Deno.test("Next.js builds a page with the hooks, and renders it without a browser", async () => {
  const folder = `${npm.folder}/next`;
  await Deno.mkdir(`${folder}/app`, { recursive: true });
  await Deno.writeTextFile(`${folder}/package.json`, '{"private": true}');
  await Deno.writeTextFile(`${folder}/app/page.jsx`, NEXT_PAGE);
  const layout = "export default ({ children }) => <html><body>{children}</body></html>;\n";
  await Deno.writeTextFile(`${folder}/app/layout.jsx`, layout);
  await done("npm", [...INSTALL, "next@16", "react@19", "react-dom@19", npm.tarball], {
    cwd: folder,
    ...SLOW,
  });
  const env = { NEXT_TELEMETRY_DISABLED: "1", CI: "1" };
  await done("node", ["node_modules/next/dist/bin/next", "build"], { cwd: folder, env, ...SLOW });
  const html = await Deno.readTextFile(`${folder}/.next/server/app/index.html`);
  assertMatch(html, /<p>connecting<!-- --> <!-- -->0<\/p>/);
});

const PROGRAM = `
import { connect } from "userwire";
import { createServer, UserwireError } from "userwire/server";
const [url, redisUrls] = process.argv.slice(2);
const options = globalThis.WebSocket ? {} : { WebSocket: (await import("ws")).default };
// Nobody listens there, which each runtime has its own way to say, and none takes long for.
const vain = connect("http://127.0.0.1:1", { user: "alice", ...options });
const { reason } = await new Promise((resolve) => vain.on("lost", resolve));
if (reason.includes("did not answer")) throw new Error(reason);
await vain.close();
const client = connect(url, { user: "alice", ...options });
const next = client[Symbol.asyncIterator]();
await new Promise((resolve) => client.on("open", resolve));
const userwire = createServer({ url });
const said = [(await userwire.send("alice", { order: 7 })).sockets, (await next.next()).value.data];
if (redisUrls !== "") {
  const { Publisher } = await import("userwire/publisher");
  for (const redisUrl of redisUrls.split(" ")) {
    const publisher = await Publisher.open({ redisUrl });
    said.push((await publisher.send("alice", "direct")).sockets, (await publisher.isOnline("bob")));
    await publisher.close();
  }
  said.push((await next.next()).value.data);
}
await client.close();
console.log(JSON.stringify(said));
`;

/** The oldest that is claimed, one between, and the newest. */
const COMPILERS = ["5.2", "5.4", "latest"];

Deno.test("The types compile with the oldest TypeScript that is claimed and with the newest, libraries checked", async (t) => {
  const folder = `${npm.folder}/typed`;
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/package.json`, '{"private": true}');
  const compilers = COMPILERS.map((version) => `typescript-${version}@npm:typescript@${version}`);
  const others = ["@types/node@20", "@types/react@19", "react@19", "redis@6", npm.tarball];
  await done("npm", [...INSTALL, ...compilers, ...others], { cwd: folder, ...SLOW });
  const projects: TypedProject[] = [
    { moduleResolution: "bundler", lib: ["es2022"] },
    { moduleResolution: "node16", lib: ["es2022", "dom"] },
    { moduleResolution: "node16", lib: ["es2022"], types: ["node"] },
  ];
  for (const version of COMPILERS) {
    for (const project of projects) {
      await t.step(`TypeScript ${version}, ${Object.values(project).join(" ")}`, async () => {
        await writeTypedProject(folder, project);
        await done("node", [`node_modules/typescript-${version}/bin/tsc`, "-p", "."], { cwd: folder });
      });
    }
  }
});

/** The oldest that it claims, and the newest; Debian's runs the same checks in `tests/clients/php_sender_test.ts`. */
const PHP_VERSIONS = ["7.4", "8.5"];

Deno.test("The PHP sender keeps its word in the oldest PHP and the newest, by curl and by streams", async (t) => {
  const folder = `${npm.folder}/php`;
  await Deno.mkdir(`${folder}/testkit`, { recursive: true });
  await Deno.mkdir(`${folder}/clients/php`, { recursive: true });
  await Deno.writeTextFile(`${folder}/package.json`, '{"private": true}');
  await done("npm", [...INSTALL, "@php-wasm/cli@3"], { cwd: folder, ...SLOW });
  // These have curl built in: a sender that does not find it.
  const sender = await Deno.readTextFile(`${ROOT}clients/php/Userwire.php`);
  const withoutCurl = sender.replace("extension_loaded('curl')", "false");
  assert(sender !== withoutCurl);
  await Deno.writeTextFile(`${folder}/clients/php/Userwire.php`, withoutCurl);
  const copied = `${folder}/testkit/php_checks.php`;
  await Deno.copyFile(PHP_CHECKS, copied);
  await using checks = await PhpChecks.start();
  for (const version of PHP_VERSIONS) {
    for (const [way, path] of [["curl", PHP_CHECKS], ["streams", copied]] as const) {
      await t.step(`PHP ${version}, by ${way}`, async (t) => {
        const php = `${folder}/node_modules/.bin/php-wasm-cli`;
        await checks.run(t, `${version}-${way}`, ["node", php], { env: { PHP: version }, checks: path });
      });
    }
  }
});

Deno.test("Programs receive and send in Node 20, 22 and the newest, and in Bun", async (t) => {
  const folder = `${npm.folder}/programs`;
  await Deno.mkdir(folder);
  await Deno.writeTextFile(`${folder}/package.json`, '{"private": true, "type": "module"}');
  await Deno.writeTextFile(`${folder}/program.js`, PROGRAM);
  await done("npm", [...INSTALL, "ws@8", "redis@6", npm.tarball], { cwd: folder, ...SLOW });
  await using redis = await RedisServer.start();
  await using sentinels = await SentinelSet.start();
  await using cluster = await ClusterSet.start();
  await using service = await Service.start({ REDIS_URL: redis.url });
  const redisUrls = [redis.url, sentinels.url, cluster.url].join(" ");
  for (const version of ["20", "22", "26"]) {
    await t.step(`Node ${version}, with one Redis, Sentinels and a cluster`, async () => {
      const args = [
        "-y",
        "--prefer-offline",
        "-p",
        `node@${version}`,
        "node",
        "program.js",
        service.server.url,
        redisUrls,
      ];
      const written = await done("npx", args, { cwd: folder, ...SLOW });
      const direct = [1, false, 0, false, 0, false];
      assertEquals(JSON.parse(written), [1, { order: 7 }, ...direct, "direct"]);
    });
  }
  await t.step("Bun, without the publisher", async () => {
    const args = ["-y", "--prefer-offline", "-p", "bun@1", "bun", "program.js", service.server.url, ""];
    assertEquals(JSON.parse(await done("npx", args, { cwd: folder, ...SLOW })), [1, { order: 7 }]);
  });
});
