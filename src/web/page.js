/**
 * The console page: its views, and of the first one the "Connect" form, the cards, and the demo. Plain modules, no build
 * step; the socket itself is in socket.js, the look of one connection in card.js, sending in send.js, the top bar in
 * status.js. The other views are overview.js, users.js and groups.js.
 */
import { Card } from "./card.js";
import { byId, el, setText } from "./dom.js";
import { openGroups } from "./groups.js";
import { openOverview } from "./overview.js";
import { openSendForm } from "./send.js";
import { watchService } from "./status.js";
import { openUsers } from "./users.js";
import { addView, openViews } from "./views.js";

/** @type {Set<Card>} */
const cards = new Set();
/** How many connections each username has had: the last one's number. @type {Map<string, number>} */
const numbers = new Map();

const form = /** @type {HTMLFormElement} */ (byId("connect-form"));
const field = /** @type {HTMLInputElement} */ (byId("connect-users"));
const error = byId("connect-error");

// Who comes to an open service wants to see what it is; who has a key, how it is.
const status = watchService(({ open }) => openViews(open ? "try" : "overview"));
const sendForm = openSendForm(status.refresh);
addView("try", {});
openOverview(status);
openUsers((username) => connect(username, true));
openGroups();

function connect(/** @type {string} */ username, /** @type {boolean} */ framed) {
  const number = (numbers.get(username) ?? 0) + 1;
  numbers.set(username, number);
  const card = new Card(username, { number, framed, changed: refresh, removed: remove });
  cards.add(card);
  byId("cards").append(card.element);
  card.open();
  return card;
}

function remove(/** @type {Card} */ card) {
  // The button that had the focus goes away with the card; leave the reader where they were.
  const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
  cards.delete(card);
  card.remove();
  refresh();
  const button = next?.querySelector("footer button:last-child") ?? byId("demo");
  /** @type {HTMLElement} */ (button).focus();
}

/** Brings everything that speaks of all cards up to date. */
function refresh() {
  const open = [...cards].filter((card) => card.phase === "open");
  byId("welcome").hidden = cards.size > 0;
  byId("connections").hidden = cards.size === 0;
  byId("remove-all").hidden = cards.size < 2;
  setText(byId("connections-count"), cards.size === 0 ? "" : `${open.length} open`);
  const users = [...new Set(open.map((card) => card.username))].sort();
  byId("users").replaceChildren(...users.map((value) => el("option", { value })));
  status.refresh();
}

/** What is wrong with a username, by the rules of the protocol; undefined when nothing is. */
function fault(/** @type {string} */ username) {
  const bytes = new TextEncoder().encode(username).length;
  if (bytes > 128) return `A username has at most 128 bytes; this one has ${bytes}`;
  // deno-lint-ignore no-control-regex -- control characters are exactly what is refused
  if (/[\u0000-\u001f\u007f-\u009f{}]/u.test(username)) {
    return "A username has no control characters and no braces";
  }
  if (username.startsWith("userwire:")) return 'Names that start with "userwire:" are reserved';
  return undefined;
}

function complain(/** @type {string | undefined} */ text) {
  error.hidden = text === undefined;
  setText(error, text ?? "");
  field.setAttribute("aria-invalid", String(text !== undefined));
  if (text !== undefined) field.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const usernames = field.value.split(/\s+/u).filter((name) => name !== "");
  const problem = usernames.length === 0
    ? "Who should connect?"
    : usernames.map(fault).find((text) => text !== undefined);
  complain(problem);
  if (problem !== undefined) return;
  const framed = new FormData(form).get("wire") === "v1";
  for (const username of usernames) connect(username, framed);
  const to = /** @type {HTMLInputElement} */ (byId("send-to"));
  if (to.value === "" && !to.disabled) sendForm.fill({ to: usernames[0] ?? "" });
});
field.addEventListener("input", () => complain(undefined));

byId("remove-all").addEventListener("click", () => {
  for (const card of cards) card.remove();
  cards.clear();
  refresh();
  field.focus();
});

byId("demo").addEventListener("click", async () => {
  const opening = ["alice", "alice", "bob"].map((username) => connect(username, true));
  byId("connections-title").focus({ preventScroll: true });
  byId("connections").scrollIntoView({ block: "nearest" });
  const late = new Promise((resolve) => setTimeout(resolve, 5_000, "late"));
  // When they don't open in time the cards say why; there is nothing to show then.
  if (await Promise.race([Promise.all(opening.map((card) => card.opened)), late]) === "late") return;
  sendForm.fill({
    to: "alice",
    payload: JSON.stringify({ type: "hello", text: "Hello, alice!" }, null, 2),
    type: "json",
  });
  await sendForm.send();
});

// Names to start with: /?user=alice&user=bob or /#user=alice. Never a token: addresses end up in logs.
const names = [location.search, location.hash.replace(/^#/, "")]
  .flatMap((part) => new URLSearchParams(part).getAll("user"))
  .filter((name) => name !== "");
if (names.length > 0) {
  field.value = names.join(" ");
  sendForm.fill({ to: names[0] ?? "" });
}
refresh();
