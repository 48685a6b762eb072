/**
 * The client in a real Chromium: tabs that note what their client is told, and scenarios that share one browser, which
 * takes longer to start than any of them to run.
 *
 *     const { scenario, run } = browserScenarios("Client in a browser");
 *     scenario("Client connects", async (browser) => {
 *       await using tab = await Tab.open(browser, service.server.url);
 *     });
 *     run();
 */
import { assertEquals } from "@std/assert";
import { isBrowserMissing, launchBrowser } from "../packages/browser.ts";
import type { Browser, BrowserContext, Page } from "../packages/playwright.ts";
import { stretched, until } from "../../testkit/deadline.ts";

/** Scenarios of one test, which are its steps. */
export function browserScenarios(name: string) {
  const scenarios: [name: string, run: (browser: Browser) => Promise<void>][] = [];
  return {
    scenario(name: string, run: (browser: Browser) => Promise<void>): void {
      scenarios.push([name, run]);
    },
    run(): void {
      Deno.test({
        name,
        ignore: isBrowserMissing,
        async fn(t) {
          await using browser = await launchBrowser();
          for (const [name, run] of scenarios) await t.step(name, () => run(browser));
        },
      });
    },
  };
}

/** A message as a page notes it. */
export interface Told {
  data?: unknown;
  bytes?: number[];
  replayed: boolean;
}

/** A tab with a page, and the client in it, if the page has made one. */
export class Tab implements AsyncDisposable {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly #faults: string[] = [];

  constructor(context: BrowserContext, page: Page) {
    this.context = context;
    this.page = page;
    page.setDefaultTimeout(stretched(10_000));
    page.on("pageerror", (error) => this.#faults.push(String(error)));
  }

  static async open(browser: Browser, url: string): Promise<Tab> {
    const context = await browser.newContext();
    const tab = new Tab(context, await context.newPage());
    await tab.page.goto(url);
    return tab;
  }

  /**
   * Makes a client in the page that notes what it is told.
   * @param options The options of `connect` as JavaScript.
   */
  async connect(options = `{ user: "alice" }`): Promise<void> {
    await this.page.evaluate(`(async () => {
      const { connect, storedIn } = await import("/client.js");
      globalThis.told = { data: [], states: [], gaps: [], lost: [] };
      globalThis.client = connect("/", { backoff: { baseMs: 20, maxMs: 100 }, ...${options} });
      client.on("state", (state) => told.states.push(state));
      client.on("gap", (gap) => told.gaps.push(gap));
      client.on("lost", ({ code, opened }) => told.lost.push([code, opened]));
      client.on("message", ({ data, replayed }) => {
        told.data.push(data instanceof Uint8Array ? { bytes: [...data], replayed } : { data, replayed });
      });
    })()`);
  }

  told(): Promise<{ data: Told[]; states: string[]; gaps: unknown[]; lost: unknown[] }> {
    return this.page.evaluate("told");
  }

  /** Resolves when the expression is true in the page. Its policy forbids what Playwright's own way needs: eval. */
  async holds(expression: string): Promise<void> {
    await until(
      async () => Boolean(await this.page.evaluate(expression)),
      `${expression} in the page`,
      10_000,
    );
  }

  async state(state: string): Promise<void> {
    await this.holds(`client.state === ${JSON.stringify(state)}`);
  }

  async received(count: number): Promise<void> {
    await this.holds(`told.data.length >= ${count}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.context.close();
    assertEquals(this.#faults, [], "The browser reported errors");
  }
}

/** A site that has the client, a page, and these scripts. @param headers Of each answer. */
export function serveSite(scripts: Record<string, string>, headers: Record<string, string> = {}) {
  const client = Deno.readTextFileSync(new URL("../../src/web/client.js", import.meta.url));
  const files: Record<string, string> = { "/client.js": client, ...scripts };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const script = files[new URL(request.url).pathname];
    const type = script === undefined ? "text/html" : "text/javascript";
    return new Response(script ?? "<!doctype html><title>app</title>", {
      headers: { "content-type": type, ...headers },
    });
  });
  const origin = `http://127.0.0.1:${server.addr.port}`;
  return { origin, [Symbol.asyncDispose]: () => server.shutdown() };
}
