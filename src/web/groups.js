/** A group, looked up: who is in it and online; and changing that. */
import { call, path } from "./api.js";
import { confirmed } from "./confirm.js";
import { byId, el, nameOf, plural, setText } from "./dom.js";
import { post } from "./send.js";
import { showUser } from "./users.js";
import { addView } from "./views.js";

/** Users on one page. */
const PAGE = 50;

const field = /** @type {HTMLInputElement} */ (byId("group-name"));
const added = /** @type {HTMLInputElement} */ (byId("group-add"));
const payload = /** @type {HTMLTextAreaElement} */ (byId("group-payload"));
let shown = "";
let turn = 0;

/** Brings the view to life. */
export function openGroups() {
  addView("groups", { shown: () => shown === "" ? field.focus() : void find(shown) });
  byId("group-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = field.value.trim().replace(/^@/, "");
    if (name !== "") find(name);
  });
  byId("group-add-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const names = added.value.split(/\s+/u).filter((name) => name !== "");
    if (names.length === 0) return added.focus();
    act(async () => {
      const { added: count } = await call("PATCH", path`/v1/groups/${shown}`, { add: names });
      added.value = "";
      return `${plural(count, "user")} added`;
    });
  });
  byId("group-send-form").addEventListener("submit", (event) => {
    event.preventDefault();
    act(async () => {
      const outcome = await post({ to: { group: shown }, payload: payload.value, type: "json" });
      if ("problem" in outcome) throw new Error(`Not sent: ${outcome.problem}`);
      return `Sent: reached ${plural(outcome.count, outcome.unit)}`;
    });
  });
  byId("group-delete").addEventListener("click", async () => {
    const group = shown;
    if (!await confirmed(`Delete the group ${group}? Its users stay, and are in it no more.`, "Delete")) {
      return;
    }
    act(async () =>
      `The group had ${plural((await call("DELETE", path`/v1/groups/${group}`)).users, "user")}`
    );
  });
  byId("group-more").addEventListener("click", () => more(byId("group-more").dataset.after ?? ""));
}

async function act(/** @type {() => Promise<string>} */ work) {
  const outcome = byId("group-outcome");
  let problem;
  try {
    setText(outcome, await work());
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
    setText(outcome, problem);
  }
  outcome.dataset.outcome = problem === undefined ? "reached" : "failed";
  await find(shown);
}

async function find(/** @type {string} */ group) {
  const own = ++turn;
  if (group !== shown) setText(byId("group-outcome"), "");
  shown = group;
  byId("group-title").replaceChildren(el("bdi", {}, `@${group}`));
  const problem = byId("group-problem");
  try {
    const { users, online } = await call("GET", path`/v1/groups/${group}`);
    if (own !== turn) return;
    setText(byId("group-state"), `${plural(users, "user")}, ${online} online`);
    byId("group-users").replaceChildren();
    byId("group-users-area").hidden = byId("group-delete").hidden = byId("group-send-form").hidden = false;
    problem.hidden = true;
    await more("");
  } catch (error) {
    if (own !== turn) return;
    const status = /** @type {{ status?: number }} */ (error).status;
    byId("group-users-area").hidden = byId("group-delete").hidden = byId("group-send-form").hidden = true;
    setText(byId("group-state"), status === 404 ? "There is no such group: whom you add makes it" : "");
    problem.hidden = status === 404;
    setText(problem, error instanceof Error ? error.message : String(error));
  }
  byId("group").hidden = false;
}

async function more(/** @type {string} */ after) {
  const group = shown;
  const query = new URLSearchParams({ limit: String(PAGE), ...(after !== "" && { after }) });
  const { items, next } = await call("GET", `${path`/v1/groups/${group}/users`}?${query}`);
  if (group !== shown) return;
  byId("group-users").append(...items.map((/** @type {any} */ item) => rowOf(group, item)));
  const button = byId("group-more");
  button.hidden = next === undefined;
  button.dataset.after = next ?? "";
}

function rowOf(/** @type {string} */ group, /** @type {any} */ { user, sockets, nodes }) {
  const count = sockets ?? nodes;
  const open = el("button", { type: "button", class: "quiet", "aria-label": `Show ${user}` }, "Show");
  open.addEventListener("click", () => showUser(user));
  const remove = el("button", { type: "button", class: "quiet", "aria-label": `Remove ${user}` }, "Remove");
  remove.addEventListener("click", () =>
    act(async () => {
      await call("DELETE", path`/v1/groups/${group}/users/${user}`);
      return `${user} is in the group no more`;
    }));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, nameOf(user)),
    el("td", {}, count > 0 ? plural(count, sockets === undefined ? "node" : "socket") : "offline"),
    el("td", { class: "actions" }, open, remove),
  );
}
