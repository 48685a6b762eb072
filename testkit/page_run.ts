/**
 * Runs the blocks of one page one after the other, as a reader would: in an empty folder that has this project beside it as
 * `../userwire`, with `userwire`, `deno`, `npx -y deno` and `redis-server` to call. Ports are the run's own, whatever the
 * page calls them, and nothing is fetched but what Deno has already, unless the page writes a project of its own. All that a
 * page has started ends with it.
 *
 *     await using run = new PageRun();
 *     for (const block of blocks) await run.block(block);
 *     await run.finished();
 */
import { fileURLToPath } from "node:url";
import { Bell, until } from "./deadline.ts";
import { OwnPort } from "./own_port.ts";
import type { Block } from "./pages.ts";
import { findRedisServer, hasPythonWebsockets } from "./programs.ts";
import { TempFolder } from "./temp_folder.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** A block starts several programs, each of which takes its time on a busy machine. */
const BLOCK_MS = 120_000;
/** Those that pages speak of: services, Redis, backends. */
const PORTS = ["8765", "8766", "8767", "6379", "3000", "3001", "3002"] as const;
const SERVICES = ["8765", "8766", "8767"] as const;
/** Where nobody is, so that nothing is fetched. */
const NOWHERE = "http://127.0.0.1:1";
/** How a machine reaches the network: proxies, certificates, a registry of its own. */
const NETWORK = /proxy|cert|^npm_config_registry$/i;
/** A line that starts a service. */
const SERVES = /(?:^|[\s/])userwire(?: serve\b.*)?(?: &)?$/m;

export class PageRun implements AsyncDisposable {
  readonly #folder = new TempFolder("page");
  readonly #ports = new Map<string, OwnPort>(PORTS.map((port) => [port, OwnPort.take()]));
  readonly #env: Record<string, string>;
  readonly #children: Deno.ChildProcess[] = [];
  readonly #reading: Promise<void>[] = [];
  readonly #bell = new Bell();
  /** What terminals have yet to write. */
  readonly #pending: (() => Promise<void>)[] = [];
  #output = "";

  constructor() {
    const folder = this.#folder.path;
    for (const name of ["site", "site/bin", "bin"]) Deno.mkdirSync(`${folder}/${name}`);
    Deno.symlinkSync(`${ROOT}bin/userwire`, `${folder}/site/bin/userwire`);
    Deno.symlinkSync(`${ROOT}bin/userwire`, `${folder}/bin/userwire`);
    Deno.symlinkSync(`${ROOT}clients`, `${folder}/site/clients`);
    Deno.symlinkSync(ROOT, `${folder}/userwire`);
    Deno.symlinkSync(Deno.execPath(), `${folder}/bin/deno`);
    // Redis goes by its name, see programs.ts.
    const redis = findRedisServer();
    if (redis !== undefined) Deno.symlinkSync(redis, `${folder}/bin/redis-server`);
    // npx itself would look for a newer Deno.
    const npx = '#!/bin/sh\n[ "$1 $2" = "-y deno" ] && shift 2 && exec deno "$@"\nexit 1\n';
    Deno.writeTextFileSync(`${folder}/bin/npx`, npx, { mode: 0o755 });
    const { PATH = "", HOME = "", TMPDIR = "/tmp", DENO_DIR = `${HOME}/.cache/deno` } = Deno.env.toObject();
    this.#env = {
      ...{ PATH: `${folder}/bin:${PATH}`, HOME, TMPDIR, DENO_DIR, NO_COLOR: "1", LOG_DIR: `${folder}/logs` },
      ...{ PORT: `${this.#ports.get("8765")}`, USERWIRE_URL: this.#urlOf("8765"), HTTPS_PROXY: NOWHERE },
    };
  }

  /** Whether a block starts a service; a page without one needs `serve`. */
  static serves({ language, reason, text }: Block): boolean {
    return language === "sh" && reason === undefined && SERVES.test(text);
  }

  /** Starts a service without settings, for pages that take one for granted. */
  async serve(): Promise<void> {
    this.#spawn("sh", ["-c", "exec userwire"]);
    await this.#untilReady("8765");
  }

  /** Runs a block; resolves when it is done, or in a terminal when it is ready. */
  async block(block: Block): Promise<void> {
    const { language, file, needs, place, reason } = block;
    if (reason !== undefined || language === "text") return;
    const text = this.#withOwnPorts(block.text);
    if (file !== undefined) {
      if (file === "deno.json") this.#mayFetch();
      return Deno.writeTextFileSync(`${this.#site}/${file}`, text);
    }
    if (language === "json") return;
    if (needs !== undefined && !hasProgram(needs)) {
      return console.warn(`${place} is not run: there is no ${needs} here`);
    }
    const from = this.#output.length;
    if (language === "sh" && !block.isTerminal) {
      const { status } = this.#spawn("sh", ["-euc", `${KEPT_EXPORTS}\n${text}`]);
      await this.#ended(status, place, from);
      return await this.#written(block, from);
    }
    this.#pending.push(() => this.#written(block, from));
    const before = await this.#connections();
    if (language === "sh") this.#spawn("sh", ["-euc", `${KEPT_EXPORTS}\n${text}`]);
    else this.#runPage(language === "html" ? scriptIn(text) : text, from);
    if (!PageRun.serves(block)) return await this.#untilSeen(block, before, from);
    const port = /\bPORT=(\d+)/.exec(block.text)?.[1] ?? "8765";
    await this.#untilReady(port);
  }

  /** A project of its own has no lock file yet: Deno asks the registry what its packages are, the way this machine does. */
  #mayFetch(): void {
    delete this.#env.HTTPS_PROXY;
    for (const [name, value] of Object.entries(Deno.env.toObject())) {
      if (NETWORK.test(name)) this.#env[name] = value;
    }
    const { HTTPS_PROXY: proxy } = this.#env;
    const line = proxy === undefined ? "unset HTTPS_PROXY" : `export HTTPS_PROXY='${proxy}'`;
    // Blocks before have kept it for those that follow.
    Deno.writeTextFileSync(`${this.#folder}/exports`, `${line}\n`, { append: true });
  }

  /** Resolves when all terminals have written what they were to. */
  async finished(): Promise<void> {
    for (const written of this.#pending) await written();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { pid } of this.#children) {
      try {
        Deno.kill(-pid, "SIGKILL"); // the group: what runs in the background stays when the shell has ended
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error; // it ended a moment ago
      }
    }
    await Promise.all([...this.#reading, ...this.#children.map(({ status }) => status)]);
    for (const port of this.#ports.values()) port[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }

  get #site(): string {
    return `${this.#folder}/site`;
  }

  #urlOf(port: string): string {
    return `http://127.0.0.1:${this.#ports.get(port)}`;
  }

  #withOwnPorts(text: string): string {
    return text.replaceAll(/\b(?:8765|8766|8767|6379|300[012])\b/g, (port) => String(this.#ports.get(port)));
  }

  /** Runs what stands in a page of the browser. */
  #runPage(script: string, at: number): void {
    const path = `${this.#site}/page_${at}.js`;
    Deno.writeTextFileSync(path, script);
    // A cache of its own: another page may have had this port, and the client of another version behind it.
    this.#spawn(Deno.execPath(), ["run", "-A", "--no-lock", path], { DENO_DIR: `${this.#folder}/cache` });
  }

  #spawn(command: string, args: string[], env: Record<string, string> = {}): Deno.ChildProcess {
    const child = new Deno.Command(command, {
      args,
      cwd: this.#site,
      clearEnv: true,
      env: { ...this.#env, EXPORTS: `${this.#folder}/exports`, ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
    this.#children.push(child);
    this.#reading.push(this.#read(child.stdout), this.#read(child.stderr));
    return child;
  }

  async #read(stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      this.#output += text;
      this.#bell.ring();
    }
  }

  async #ended(status: Promise<Deno.CommandStatus>, place: string, from: number): Promise<void> {
    let code: number | undefined;
    status.then((status) => {
      code = status.code;
      this.#bell.ring();
    });
    const seen = () => this.#output.slice(from);
    await this.#bell.until(() => code !== undefined, `${place} to end`, BLOCK_MS, seen);
    if (code !== 0) throw new Error(`${place} ends with ${code}: ${seen()}`);
  }

  /** Resolves when the block has written all that it claims. */
  async #written({ claims, place }: Block, from: number): Promise<void> {
    for (const claim of claims) {
      const pattern = new RegExp(claim.split("…").map(RegExp.escape).join(".*"));
      const seen = () => this.#output.slice(from);
      await this.#bell.until(() => pattern.test(seen()), `${place} to write ${claim}`, BLOCK_MS, seen);
    }
  }

  /** Resolves when what runs in a terminal is there for what follows: connected, or, if it is no client, heard of. */
  async #untilSeen({ place, text }: Block, connections: number, from: number): Promise<void> {
    const isClient = /listen |WebSocket|connect\(|receive\w*\.py/.test(text);
    const isThere = async () =>
      isClient ? await this.#connections() > connections : await this.#isListening(text);
    await until(isThere, `${place} to be there`, BLOCK_MS, () => this.#output.slice(from));
  }

  /** Whether something answers on each port that a program speaks of; those of backends, if it speaks of none. */
  async #isListening(text: string): Promise<boolean> {
    const named = PORTS.filter((port) => text.includes(port));
    for (const port of named.length > 0 ? named : ["3000"]) {
      try {
        (await Deno.connect({ port: this.#ports.get(port)!.number })).close();
      } catch {
        return false;
      }
    }
    return true;
  }

  async #untilReady(port: string): Promise<void> {
    const from = this.#output.length;
    const isReady = async () => (await this.#ask(port))?.ready === true;
    await until(isReady, `a service on ${port}`, BLOCK_MS, () => this.#output.slice(from));
  }

  /** Sockets of all services that the page has started. */
  async #connections(): Promise<number> {
    const answers = await Promise.all(SERVICES.map((port) => this.#ask(port)));
    return answers.reduce((sum, answer) => sum + (answer?.connections ?? 0), 0);
  }

  async #ask(port: string): Promise<{ ready: boolean; connections: number } | undefined> {
    try {
      return await (await fetch(`${this.#urlOf(port)}/readyz`)).json();
    } catch {
      return undefined; // nobody is there
    }
  }
}

/** What a block exports, later ones have. */
const KEPT_EXPORTS = '[ ! -f "$EXPORTS" ] || . "$EXPORTS"; trap \'export -p > "$EXPORTS"\' EXIT';

function scriptIn(html: string): string {
  return /<script type="module">([\s\S]*)<\/script>/.exec(html)![1]!;
}

function hasProgram(name: string): boolean {
  if (name === "websockets") return hasPythonWebsockets();
  const folders = (Deno.env.get("PATH") ?? "").split(":");
  return folders.some((folder) => {
    try {
      return Deno.statSync(`${folder}/${name}`).isFile;
    } catch {
      return false;
    }
  });
}
