/**
 * Which web pages may use this service. CORS does not protect WebSockets, and a page from anywhere can reach a
 * service on loopback through the browser, so every request that carries an `Origin` is checked; and, where nobody
 * has to show anything, the host by which it was called.
 */
import { isLoopback, isUnspecified } from "./addresses.ts";
import type { OwnHost } from "./own_host.ts";

/** How an origin is looked at: whether its pages are our own, or others that may use the service, or may not. */
export type Standing = "own" | "listed" | "refused";

/**
 * Makes the function that judges origins: pages of this host, and of origins on the list.
 * @param allowed As `USERWIRE_ALLOWED_ORIGINS` is read: origins, `*` for all, `https://*.example.com` for every name
 *   below one, and `null` and `file://` for pages that have none.
 */
export function originJudge(allowed: readonly string[]): (origin: string, own: OwnHost) => Standing {
  const all = allowed.includes("*");
  const exact = new Set(allowed);
  const below = allowed.map(wildcardOf).filter((wildcard) => wildcard !== undefined);
  return (origin, own) => {
    const site = siteOf(origin);
    if (site !== undefined && isOwnPage(site, own)) return "own";
    if (all || exact.has(origin)) return "listed";
    // A browser writes an origin in one way only. What is written differently comes from no page.
    const page = site?.origin === origin ? site : undefined;
    const isBelow = page !== undefined &&
      below.some(({ protocol, port, suffix }) =>
        page.protocol === protocol && page.port === port && page.hostname.endsWith(suffix)
      );
    return isBelow ? "listed" : "refused";
  };
}

/**
 * What an origin names, if that is a scheme, a host and perhaps a port. Libraries of apps make it of the address they
 * dial: `wss://push.example`, or with a slash or a default port that a browser leaves out. No page has such an origin,
 * and who is no page could as well send none.
 */
function siteOf(origin: string): URL | undefined {
  const site = URL.parse(origin.replace(/^ws(s?):/i, "http$1:"));
  return site?.href === `${site?.protocol}//${site?.host}/` ? site : undefined;
}

/**
 * Whether the page has the host by which the service was called. Behind a proxy that ends TLS the scheme differs, but
 * never the other way: a page that came by plain http, and may have been changed on the way, must not get at a service
 * that is called by https.
 */
function isOwnPage({ protocol, hostname, port }: URL, own: OwnHost): boolean {
  if (protocol !== "https:" && (protocol !== "http:" || own.protocol === "https:")) return false;
  return hostname === own.hostname && port === (own.port === DEFAULT_PORTS[protocol] ? "" : own.port);
}

const DEFAULT_PORTS = { "http:": "80", "https:": "443" };

/** What `https://*.example.com` stands for; undefined when it is no such entry. */
function wildcardOf(entry: string): { protocol: string; port: string; suffix: string } | undefined {
  if (!entry.includes("://*.")) return undefined;
  const { protocol, port, hostname } = new URL(entry.replace("://*.", "://"));
  return { protocol, port, suffix: `.${hostname}` };
}

/** Entries of the list that let in more than pages of one site, each with what it opens, for the log. */
export function wideOrigins(allowed: readonly string[]): { origin: string; reason: string }[] {
  return allowed.flatMap((origin) => {
    const reason = origin === "*"
      ? "pages of every site may call and connect"
      : origin === "null"
      ? "any sandboxed frame, on any site, and any local file may call and connect"
      : origin === "file://"
      ? "any local file, and any app that shows one, may call and connect"
      : wildcardOf(origin)
      ? "every page of any subdomain may call and connect, also of one that somebody else runs"
      : undefined;
    return reason === undefined ? [] : [{ origin, reason }];
  });
}

/**
 * Tells whether a service in open mode on loopback was called by a name of its own. A page whose own host name leads to
 * 127.0.0.1 (DNS rebinding) is of the same origin as the service, but its name is a stranger's. Addresses that mean
 * every interface lead to no stranger's machine: they are names of this one.
 * @param host The host the service listens on.
 */
export function hostGuard(host: string, allowed: readonly string[]): (own: OwnHost) => boolean {
  const all = allowed.includes("*");
  const exact = allowed.filter((entry) => !wildcardOf(entry));
  const names = new Set(exact.map((entry) => URL.parse(entry)?.hostname));
  const suffixes = allowed.map(wildcardOf).flatMap((wildcard) => wildcard ? [wildcard.suffix] : []);
  const isOwn = (hostname: string) => {
    const name = hostname.replace(/^\[(.*)\]$/, "$1");
    return isLoopback(name) || isUnspecified(name) || name === host || names.has(hostname) ||
      suffixes.some((suffix) => hostname.endsWith(suffix));
  };
  let last: OwnHost | undefined;
  let isLastOwn = false;
  return (own) => {
    if (all) return true;
    if (own !== last) {
      // Both: a rebound page may write what only a proxy on this machine should, but never its own Host.
      isLastOwn = isOwn(own.hostname) && (own.direct === own.hostname || isOwn(own.direct));
      last = own;
    }
    return isLastOwn;
  };
}
