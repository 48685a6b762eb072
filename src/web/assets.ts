/**
 * The console page as text inside the program, so that a bundle or a compiled binary serves it without reading
 * the disk. Holds the files and their types, keyed by URL path; headers, caching and routing belong to `http/`.
 *
 * Every module of the page is listed here: what is missing from the map is a 404 in the browser.
 */
import { createHash } from "node:crypto";
import html from "./index.html" with { type: "text" };
import tokens from "./css/tokens.css" with { type: "text" };
import base from "./css/base.css" with { type: "text" };
import layout from "./css/layout.css" with { type: "text" };
import forms from "./css/forms.css" with { type: "text" };
import welcome from "./css/welcome.css" with { type: "text" };
import cards from "./css/cards.css" with { type: "text" };
import views from "./css/views.css" with { type: "text" };
import charts from "./css/charts.css" with { type: "text" };
import narrow from "./css/narrow.css" with { type: "text" };
import icon from "./icon.svg" with { type: "text" };
import page from "./page.js" with { type: "text" };
import api from "./api.js" with { type: "text" };
import chartsScript from "./charts.js" with { type: "text" };
import confirm from "./confirm.js" with { type: "text" };
import frames from "./frames.js" with { type: "text" };
import groups from "./groups.js" with { type: "text" };
import overview from "./overview.js" with { type: "text" };
import pictures from "./pictures.js" with { type: "text" };
import stats from "./stats.js" with { type: "text" };
import users from "./users.js" with { type: "text" };
import viewsScript from "./views.js" with { type: "text" };
import access from "./access.js" with { type: "text" };
import card from "./card.js" with { type: "text" };
import client from "./client.js" with { type: "text" };
import eventStream from "./event_stream.js" with { type: "text" };
import requests from "./requests.js" with { type: "text" };
import dom from "./dom.js" with { type: "text" };
import send from "./send.js" with { type: "text" };
import socket from "./socket.js" with { type: "text" };
import status from "./status.js" with { type: "text" };

/** One file of the page. */
export interface Asset {
  readonly body: string;
  /** Value of the `content-type` header. */
  readonly type: string;
  /** Value of the `etag` header, with its quotes; changes when the body changes. */
  readonly etag: string;
}

/** One file for the browser, in the order in which later rules win. */
const css = [tokens, base, layout, forms, welcome, cards, views, charts, narrow].join("\n");

const JAVASCRIPT = "text/javascript; charset=utf-8";

/** The files of the console page by URL path. */
export const assets: ReadonlyMap<string, Asset> = new Map([
  ["/", asset(html, "text/html; charset=utf-8")],
  ["/page.css", asset(css, "text/css; charset=utf-8")],
  ["/icon.svg", asset(icon, "image/svg+xml")],
  ["/page.js", asset(page, JAVASCRIPT)],
  ["/access.js", asset(access, JAVASCRIPT)],
  ["/api.js", asset(api, JAVASCRIPT)],
  ["/charts.js", asset(chartsScript, JAVASCRIPT)],
  ["/confirm.js", asset(confirm, JAVASCRIPT)],
  ["/frames.js", asset(frames, JAVASCRIPT)],
  ["/groups.js", asset(groups, JAVASCRIPT)],
  ["/overview.js", asset(overview, JAVASCRIPT)],
  ["/pictures.js", asset(pictures, JAVASCRIPT)],
  ["/stats.js", asset(stats, JAVASCRIPT)],
  ["/users.js", asset(users, JAVASCRIPT)],
  ["/views.js", asset(viewsScript, JAVASCRIPT)],
  ["/card.js", asset(card, JAVASCRIPT)],
  // Not the page's alone: whatever program wants the client may take it from here.
  ["/client.js", asset(client, JAVASCRIPT)],
  ["/event_stream.js", asset(eventStream, JAVASCRIPT)],
  ["/requests.js", asset(requests, JAVASCRIPT)],
  ["/dom.js", asset(dom, JAVASCRIPT)],
  ["/send.js", asset(send, JAVASCRIPT)],
  ["/socket.js", asset(socket, JAVASCRIPT)],
  ["/status.js", asset(status, JAVASCRIPT)],
]);

function asset(body: string, type: string): Asset {
  const digest = createHash("sha256").update(body).digest("base64url");
  return { body, type, etag: `"${digest.slice(0, 22)}"` };
}
