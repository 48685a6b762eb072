/** The console in a window of its own: the gestures that its tests share, and that the browser reports no error. */
import { assertEquals } from "@std/assert";
import { stretched } from "../../testkit/deadline.ts";
import type {
  Browser,
  BrowserContext,
  BrowserContextOptions,
  Locator,
  Page,
} from "../packages/playwright.ts";

/**
 * What the browser itself writes about a request or a socket that fails: refused, cut off, or answered 503 by a
 * service on its way out, whichever of them it meets; and about what a page gives to a socket that is just being closed.
 */
export const UNANSWERED =
  /^Failed to load resource: |^WebSocket connection to '[^']*' failed: |^WebSocket is already in CLOSING or CLOSED state/;

/** The page in a window that shares nothing with others, and the few gestures the tests share. */
export class ConsolePage implements AsyncDisposable {
  readonly page: Page;
  readonly #context: BrowserContext;
  readonly #faults: string[] = [];
  readonly #forgiven: RegExp[] = [];

  private constructor(context: BrowserContext, page: Page) {
    this.#context = context;
    this.page = page;
    page.setDefaultTimeout(stretched(10_000));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.#faults.push(message.text());
    });
    page.on("pageerror", (error) => this.#faults.push(String(error)));
    page.on("dialog", (dialog) => {
      this.#faults.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
  }

  static async open(
    browser: Browser,
    url: string,
    viewport = { width: 1280, height: 800 },
    options: BrowserContextOptions = {},
  ): Promise<ConsolePage> {
    const context = await browser.newContext({ viewport, ...options });
    const console = new ConsolePage(context, await context.newPage());
    await console.page.goto(url);
    await console.page.locator('#service[data-state="ready"]').waitFor();
    return console;
  }

  /** The card of a user's nth connection. */
  card(username: string, number: number): Locator {
    return this.page.getByRole("article", { name: `${username}, connection ${number}`, exact: true });
  }

  /** Connects each name once, in the order given, and waits until all of them are open. */
  async connect(names: string, wire: "userwire.v1" | "raw" = "userwire.v1"): Promise<void> {
    const before = await this.page.getByRole("article").count();
    await this.page.getByLabel("Username").fill(names);
    await this.page.getByRole("radio", { name: wire, exact: true }).check();
    await this.page.getByRole("button", { name: "Connect", exact: true }).click();
    const count = before + names.split(" ").length;
    await this.page.locator('.card[data-state="open"]').nth(count - 1).waitFor();
  }

  /** Sends with Ctrl+Enter and returns what the page says became of it. */
  async send(to: string, payload: string, type: "JSON" | "Text" = "JSON"): Promise<string> {
    const { page } = this;
    const sent = await page.locator("#sends > li").count();
    await page.getByLabel("To", { exact: true }).fill(to);
    await page.getByRole("radio", { name: type, exact: true }).check();
    await page.getByLabel("Payload", { exact: true }).fill(payload);
    await page.keyboard.press("Control+Enter");
    await page.locator("#sends > li").nth(sent).waitFor();
    return await page.locator("#send-outcome").innerText();
  }

  /** The payloads that a card shows, newest first, once there are that many. */
  async payloads(card: Locator, count: number): Promise<string[]> {
    await card.locator(".messages > li").nth(count - 1).waitFor();
    return await card.locator(".messages pre").allInnerTexts();
  }

  /** How much wider than the window the page is, in pixels. */
  async overflow(): Promise<number> {
    return await this.page.evaluate("document.documentElement.scrollWidth - innerWidth");
  }

  /** Faults that match are no faults: the test causes them. The browser may report them later than it met them. */
  forgive(pattern: RegExp): void {
    this.#forgiven.push(pattern);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#context.close();
    const faults = this.#faults.filter((fault) => !this.#forgiven.some((pattern) => pattern.test(fault)));
    assertEquals(faults, [], "The browser reported errors");
  }
}
