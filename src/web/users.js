/** A user, looked up: connections on all nodes, the last messages, groups; and what can be done for them. */
import { call, path } from "./api.js";
import { drawMessage } from "./card.js";
import { confirmed } from "./confirm.js";
import { byId, clockOf, el, nameOf, plural, setText, sizeOf } from "./dom.js";
import { post } from "./send.js";
import { addView, goTo } from "./views.js";

/** How many of the last messages are shown. */
const LAST = 20;

const field = /** @type {HTMLInputElement} */ (byId("user-name"));
const payload = /** @type {HTMLTextAreaElement} */ (byId("user-payload"));
let shown = "";
/** What was asked last: answers to what was asked before are of no use. */
let turn = 0;

/** Brings the view to life. @param {(username: string) => void} actAs Connects as a user. */
export function openUsers(actAs) {
  addView("users", { shown: () => shown === "" ? field.focus() : void find(shown) });
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim() !== "") find(field.value.trim());
  });
  byId("user-refresh").addEventListener("click", () => find(shown));
  byId("user-act").addEventListener("click", () => {
    goTo("try");
    actAs(shown);
  });
  byId("user-kick").addEventListener(
    "click",
    () =>
      act(`Close every connection of ${shown}? Their clients take it as final.`, "Kick", async () => {
        const { closed, nodes } = await call("DELETE", path`/v1/users/${shown}/connections`);
        return closed === undefined
          ? `${plural(nodes, "node")} told to close`
          : `${plural(closed, "connection")} told to close`;
      }),
  );
  byId("user-revoke").addEventListener(
    "click",
    () =>
      act(
        `Revoke every token and ticket of ${shown}? Connections that they let in close.`,
        "Revoke",
        async () => {
          await call("POST", path`/v1/users/${shown}/revocations`, {});
          return "Revoked: what was issued until now lets nobody in";
        },
      ),
  );
  byId("user-send-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const outcome = await post({ to: { user: shown }, payload: payload.value, type: typeOf(payload.value) });
    say(
      "problem" in outcome
        ? `Not sent: ${outcome.problem}`
        : `Sent: ${
          outcome.count > 0 ? `reached ${plural(outcome.count, outcome.unit)}` : "the user is offline"
        }`,
      "problem" in outcome,
    );
    await find(shown);
  });
}

/** Shows a user in this view. */
export function showUser(/** @type {string} */ username) {
  shown = username;
  field.value = username;
  goTo("users");
}

function typeOf(/** @type {string} */ text) {
  try {
    JSON.parse(text);
    return /** @type {const} */ ("json");
  } catch {
    return /** @type {const} */ ("text");
  }
}

async function act(
  /** @type {string} */ question,
  /** @type {string} */ action,
  /** @type {() => Promise<string>} */ work,
) {
  const username = shown;
  if (!await confirmed(question, action) || shown !== username) return;
  try {
    say(await work(), false);
  } catch (error) {
    say(`${action}: ${error instanceof Error ? error.message : error}`, true);
  }
  await find(username);
}

function say(/** @type {string} */ text, isBad = false) {
  const outcome = byId("user-outcome");
  outcome.dataset.outcome = isBad ? "failed" : "reached";
  setText(outcome, text);
}

async function find(/** @type {string} */ username) {
  const own = ++turn;
  if (username !== shown) say("");
  shown = username;
  byId("user-problem").hidden = true;
  const [connections, messages, groups] = await Promise.all([
    settled(() => call("GET", path`/v1/users/${username}/connections`)),
    settled(() => lastMessages(username)),
    settled(() => call("GET", path`/v1/users/${username}/groups`)),
  ]);
  if (own !== turn) return;
  byId("user").hidden = connections.value === undefined && messages.value === undefined;
  byId("user-title").replaceChildren(nameOf(username));
  setText(byId("user-as-of"), `as of ${clockOf(Date.now())}`);
  const problems = new Set(
    [connections, messages, groups].flatMap(({ problem }) => problem === undefined ? [] : [problem]),
  );
  const line = byId("user-problem");
  line.hidden = problems.size === 0;
  setText(line, [...problems].join(" · "));
  drawConnections(username, connections.value);
  drawMessages(messages.value);
  drawGroups(groups.value?.groups ?? []);
}

/** @returns {Promise<{ value?: any, problem?: string }>} */
async function settled(/** @type {() => Promise<any>} */ work) {
  try {
    return { value: await work() };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

/** The newest of them: the history is read from a number on. */
async function lastMessages(/** @type {string} */ username) {
  const { last } = await call("GET", path`/v1/users/${username}/messages` + "?limit=1");
  return await call(
    "GET",
    path`/v1/users/${username}/messages` + `?limit=${LAST}&after=${Math.max(0, Number(last) - LAST)}`,
  );
}

function drawConnections(/** @type {string} */ username, /** @type {any} */ answer) {
  const { items = [], unanswered = 0 } = answer ?? {};
  const nodes = new Set(items.map((/** @type {any} */ { node }) => node)).size;
  const words = answer === undefined
    ? "not known"
    : items.length === 0
    ? "offline"
    : `online: ${plural(items.length, "connection")} on ${plural(nodes, "node")}`;
  const missing = unanswered > 0 ? `, and ${unanswered} did not answer` : "";
  setText(byId("user-state"), words + missing);
  byId("user-connections-area").hidden = items.length === 0;
  byId("user-connections").replaceChildren(...items.map((/** @type {any} */ item) => rowOf(username, item)));
}

/** One connection, as the service says it. */
function rowOf(/** @type {string} */ username, /** @type {any} */ item) {
  const close = el("button", {
    type: "button",
    class: "quiet",
    "aria-label": `Close connection ${item.conn}`,
  }, "Close");
  close.addEventListener(
    "click",
    () =>
      act(`Close the connection ${item.conn} of ${username}?`, "Close", async () => {
        await call("DELETE", path`/v1/users/${username}/connections/${String(item.conn)}`);
        return "The connection was told to close";
      }),
  );
  const since = item.since === undefined ? "being opened" : clockOf(Date.parse(item.since));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, el("code", {}, String(item.conn))),
    el("td", {}, el("bdi", {}, String(item.node))),
    el("td", {}, since),
    el(
      "td",
      {},
      `${item.transport === "sse" ? "server-sent events" : "WebSocket"}${item.mode === "raw" ? ", raw" : ""}`,
    ),
    el("td", {}, el("code", {}, item.position ?? "–")),
    el("td", { class: "number" }, item.buffered === 0 ? "0" : sizeOf(Number(item.buffered))),
    el("td", { class: "number" }, String(item.behind ?? "–")),
    el("td", {}, close),
  );
}

function drawMessages(/** @type {any} */ answer) {
  const items = [...answer?.items ?? []].reverse();
  byId("user-messages").replaceChildren(...items.map((/** @type {any} */ { id, ts, seq, enc, g, data }) => {
    const kind = enc === "base64" ? "binary" : typeof data === "string" ? "text" : "json";
    const group = g === undefined ? {} : { group: g };
    return drawMessage({ kind, data, id, ts, seq: Number(seq), ...group }, { isBrief: true });
  }));
  byId("user-no-messages").hidden = items.length > 0;
}

function drawGroups(/** @type {string[]} */ groups) {
  byId("user-groups-area").hidden = groups.length === 0;
  byId("user-groups").replaceChildren(...groups.map((group) => el("li", {}, el("bdi", {}, `@${group}`))));
}
