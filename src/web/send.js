/**
 * The "Send" form: posts a message, says in words what became of it, shows the same call as a curl command, and
 * keeps a short history.
 */
import { accessKey } from "./access.js";
import { authorized } from "./api.js";
import { byId, el, nameOf, plural, setText, timeOf } from "./dom.js";

const KEPT_SENDS = 20;

/**
 * @typedef {{ to: string | undefined, payload: string, type: "json" | "text" }} Message
 *   `to`: a user, or a group with @ before its name; undefined for everybody who is connected.
 * @typedef {{ user: string } | { group: string }} Target Where a name with @ before it is a user's.
 * @typedef {{ users: number, online: number, stored: number, unknown: number }} Members
 *   Of a group: how many of its users the message was for, by what became of it for them.
 * @typedef {{ count: number, unit: string, kept: boolean, members?: Members, id: string, tookMs: number } | { problem: string, tookMs: number }} Outcome
 *   `kept`: nobody has it yet, but who comes back in time gets it.
 */

/** Brings the form to life. `sent` is called after each send, whatever came of it. */
export function openSendForm(/** @type {() => void} */ sent) {
  const form = /** @type {HTMLFormElement} */ (byId("send-form"));
  const to = /** @type {HTMLInputElement} */ (byId("send-to"));
  const all = /** @type {HTMLInputElement} */ (byId("send-all"));
  const payload = /** @type {HTMLTextAreaElement} */ (byId("send-payload"));
  const button = /** @type {HTMLButtonElement} */ (byId("send-button"));
  const toError = byId("send-to-error");
  const hint = byId("send-payload-hint");

  const type = () => /** @type {"json" | "text"} */ (new FormData(form).get("type"));

  function refresh() {
    const fault = type() === "json" ? jsonFault(payload.value) : undefined;
    hint.hidden = fault === undefined;
    setText(hint, fault === undefined ? "" : `Not valid JSON yet: ${fault}`);
    payload.classList.toggle("doubtful", fault !== undefined);
    to.disabled = all.checked;
    const whom = all.checked ? undefined : to.value || "alice";
    setText(byId("curl"), curlOf({ to: whom, payload: payload.value, type: type() }));
  }

  async function send() {
    const missing = !all.checked && to.value === "";
    toError.hidden = !missing;
    setText(toError, missing ? "Whom should it go to?" : "");
    to.setAttribute("aria-invalid", String(missing));
    if (missing) return to.focus();

    const whom = all.checked ? undefined : to.value;
    const message = { to: whom, payload: payload.value, type: type(), at: new Date() };
    // Not disabled: a button that is loses the focus, and who works with the keyboard would be at the page's beginning.
    button.setAttribute("aria-disabled", "true");
    const outcome = await post(message);
    button.removeAttribute("aria-disabled");
    showOutcome(message.to, outcome);
    remember(message, outcome);
    sent();
  }

  function remember(
    /** @type {Message & { at: Date }} */ message,
    /** @type {Outcome} */ outcome,
  ) {
    const label = `Use again: to ${message.to ?? "everybody"}`;
    const again = el("button", { type: "button", class: "quiet", "aria-label": label }, "Use again");
    again.addEventListener("click", () => {
      fill(message);
      payload.focus();
    });
    const item = el(
      "li",
      { "data-outcome": classOf(outcome) },
      timeOf(message.at),
      message.to === undefined ? el("span", {}, "everybody") : nameOf(message.to),
      el("code", { class: "excerpt" }, message.payload.replace(/\s+/g, " ").slice(0, 200)),
      el("span", { class: "result" }, shortWords(outcome)),
      again,
    );
    const list = byId("sends");
    list.prepend(item);
    while (list.childElementCount > KEPT_SENDS) list.lastElementChild?.remove();
    byId("history").hidden = false;
  }

  function fill(/** @type {Pick<Message, "to"> & Partial<Message>} */ message) {
    all.checked = message.to === undefined;
    to.value = message.to ?? to.value;
    if (message.payload !== undefined) payload.value = message.payload;
    const radio = form.querySelector(`input[name="type"][value="${message.type ?? type()}"]`);
    /** @type {HTMLInputElement} */ (radio).checked = true;
    refresh();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!button.hasAttribute("aria-disabled")) send();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  form.addEventListener("input", () => {
    toError.hidden = true;
    to.removeAttribute("aria-invalid");
    refresh();
  });
  byId("curl-copy").addEventListener("click", copyCurl);
  if (/Mac|iPhone|iPad/.test(navigator.platform)) setText(byId("send-modifier"), "⌘");
  refresh();

  return { fill, send };
}

/**
 * Posts one message.
 * @param {Omit<Message, "to"> & { to: Message["to"] | Target }} message
 * @returns {Promise<Outcome>}
 */
export async function post({ to, payload, type }) {
  const startedAt = performance.now();
  const tookMs = () => Math.round(performance.now() - startedAt);
  try {
    const response = await fetch(messagesUrl(to), {
      method: "POST",
      headers: authorized({ "content-type": contentTypeOf(type) }),
      body: payload,
      signal: AbortSignal.timeout(15_000),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) {
      // With shared subscriptions the service counts nodes; of a broadcast it does until all nodes have said their own.
      const [count, unit] = answer.sockets === undefined
        ? [answer.nodes, "node"]
        : [answer.sockets, "socket"];
      const outcome = { count, unit, kept: Boolean(answer.stored), id: answer.id, tookMs: tookMs() };
      return typeof to === "string" && to.startsWith("@") ? { ...outcome, members: answer } : outcome;
    }
    const why = answer.detail ?? answer.title ?? response.statusText;
    return { problem: `${why} (${response.status})`, tookMs: tookMs() };
  } catch (error) {
    const slow = error instanceof DOMException && error.name === "TimeoutError";
    return { problem: slow ? "No answer within 15 s" : "The server can't be reached", tookMs: tookMs() };
  }
}

function messagesUrl(/** @type {string | undefined | Target} */ to) {
  if (to === undefined) return `${location.origin}/v1/broadcast`;
  const [whose, name] = typeof to !== "string"
    ? "user" in to ? ["users", to.user] : ["groups", to.group]
    : to.startsWith("@")
    ? ["groups", to.slice(1)]
    : ["users", to];
  return `${location.origin}/v1/${whose}/${encodeURIComponent(name.toWellFormed?.() ?? name)}/messages`;
}

function contentTypeOf(/** @type {"json" | "text"} */ type) {
  return type === "json" ? "application/json" : "text/plain; charset=utf-8";
}

function showOutcome(/** @type {string | undefined} */ to, /** @type {Outcome} */ outcome) {
  const line = byId("send-outcome");
  line.dataset.outcome = classOf(outcome);
  if ("problem" in outcome) return line.replaceChildren("Not sent: ", outcome.problem);
  const words = outcome.members
    ? `: ${membersInWords(outcome.members, plural(outcome.count, outcome.unit))}`
    : outcome.count > 0
    ? ` reached ${plural(outcome.count, outcome.unit)}`
    : to === undefined
    ? " is away: nobody is connected"
    : outcome.kept
    ? " is offline: kept for when they come back"
    : " is offline: reached nobody";
  line.replaceChildren(
    el("strong", {}, to === undefined ? "Everybody" : el("bdi", {}, to), words),
    el("span", { class: "took" }, ` in ${outcome.tookMs} ms · id ${outcome.id}`),
  );
}

function membersInWords(/** @type {Members} */ { online, stored, unknown }, /** @type {string} */ reached) {
  const others = unknown > 0 ? `, ${unknown} not seen for a day` : "";
  return `reached ${reached} of ${plural(online, "user")}, kept for ${stored}${others}`;
}

function shortWords(/** @type {Outcome} */ outcome) {
  if ("problem" in outcome) return outcome.problem;
  return outcome.count > 0 ? plural(outcome.count, outcome.unit) : outcome.kept ? "offline, kept" : "offline";
}

function classOf(/** @type {Outcome} */ outcome) {
  return "problem" in outcome ? "failed" : outcome.count > 0 ? "reached" : "offline";
}

/** What keeps the text from being JSON, in the browser's words. */
function jsonFault(/** @type {string} */ text) {
  try {
    JSON.parse(text);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** The curl command that sends the same. `--data-raw`, because `-d` would read a file for a payload like "@x". */
function curlOf(/** @type {Message} */ { to, payload, type }) {
  return [
    `curl ${quoted(messagesUrl(to))}`,
    `-H ${quoted(`content-type: ${contentTypeOf(type)}`)}`,
    // By the name of its variable: a command is copied to places where a key must not be.
    ...(accessKey() === "" ? [] : ['-H "authorization: Bearer $USERWIRE_KEY"']),
    `--data-raw ${quoted(payload)}`,
  ].join(" \\\n  ");
}

/** One word for a POSIX shell. */
function quoted(/** @type {string} */ text) {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

async function copyCurl() {
  const button = byId("curl-copy");
  const source = byId("curl");
  let copied = true;
  try {
    await navigator.clipboard.writeText(source.textContent ?? "");
  } catch {
    // Plain http on another machine's address has no clipboard: select the text and try the old way.
    getSelection()?.selectAllChildren(source);
    copied = document.execCommand("copy");
  }
  setText(button, copied ? "Copied" : "Press Ctrl+C");
  setTimeout(() => setText(button, "Copy"), 2_000);
}
