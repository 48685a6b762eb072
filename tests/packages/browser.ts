/**
 * The browser that tests of pages run in: a real Chromium, without a window. It ends with the test:
 *
 *     await using browser = await launchBrowser();
 */
import { CHROMIUM_MISSING, findChromium, findHeadlessChromium } from "../../testkit/programs.ts";
import { type Browser, chromium } from "./playwright.ts";

const executablePath = findChromium();
if (executablePath === undefined) console.warn(CHROMIUM_MISSING);

/** Of a machine that has loopback and nothing else Chromium says that it is offline, and then clients try only now and then. */
const isOffline = Deno.networkInterfaces().every(({ address }) => /^(127\.|::1$|fe80:)/.test(address));
if (isOffline && executablePath !== undefined) {
  console.warn(
    "The tests of pages are skipped: a browser on a machine without a network takes itself for offline",
  );
}

/** Tests that need it are ignored then. */
export const isBrowserMissing = executablePath === undefined || isOffline;

export interface BrowserOptions {
  /** More arguments, as on the command line. */
  readonly args?: readonly string[];
  /**
   * Pages that were left are kept as they were, for when somebody goes back. Takes the Chromium that people have. Else one
   * that is built to have no window, where there is one: it has the same engine and network, and takes a third of the
   * processor time.
   * @default false
   */
  readonly keepsPages?: boolean;
}

/** A Chromium with an empty profile, which goes when it is closed. */
export function launchBrowser({ args = [], keepsPages = false }: BrowserOptions = {}): Promise<Browser> {
  return chromium.launch({
    executablePath: keepsPages ? executablePath! : findHeadlessChromium() ?? executablePath!,
    ...(keepsPages && { ignoreDefaultArgs: ["--disable-back-forward-cache"] }),
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      ...args,
    ],
  });
}
