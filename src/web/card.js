/**
 * One connection on the page: a card with its state, its messages, and the buttons that open, close and remove
 * it. Keeps the newest messages only, and draws at most once a frame, so that a flood does not freeze the page.
 */
import { announce, el, hueOf, keepDigits, layOut, nameOf, plural, setText, sizeOf, timeOf } from "./dom.js";
import { FrameLog } from "./frames.js";
import { CLOSE_MEANINGS, FramedSocket, OFFLINE, RawSocket } from "./socket.js";

const KEPT_MESSAGES = 100;
/** Longer payloads are folded, so that one of them does not push the others out of sight. */
const FOLD_CHARS = 1_200;
const FOLD_LINES = 24;
/** What is short enough for one line. */
const BRIEF_CHARS = 120;

/**
 * @typedef {import("./socket.js").State} State
 * @typedef {import("./socket.js").Message} Message
 * @typedef {import("./socket.js").Gap} Gap
 */

export class Card {
  /** @type {string} */
  username;
  /** @type {State["phase"]} */
  phase = "closed";
  /** Resolves when the socket has opened for the first time. @type {Promise<void>} */
  opened;

  /** @type {() => void} */
  #resolveOpened = () => {};
  #label;
  #wire;
  #socket;
  #changed;
  #count = 0;
  /** @type {HTMLLIElement[]} */
  #pending = [];
  #drawing = false;
  /** @type {number | undefined} */
  #countdown;

  #state = el("p", { class: "state" });
  #about = el("p", { class: "about" });
  #list = el("ol", { class: "messages" });
  // Around the list: a list that is a log is none any more, and its items belong to nothing.
  #log = el("div", { class: "log", role: "log", tabindex: "0" }, this.#list);
  #empty = el("p", { class: "empty" });
  #frames = new FrameLog();
  #toggle = el("button", { type: "button", class: "quiet" });
  #remove = el("button", { type: "button", class: "quiet" }, "Remove");

  /**
   * @param {string} username
   * @param {{ number: number, framed: boolean, changed: (card: Card) => void, removed: (card: Card) => void }} options
   *   `number` tells the connections of one user apart.
   */
  constructor(username, { number, framed, changed, removed }) {
    this.username = username;
    this.opened = new Promise((resolve) => this.#resolveOpened = resolve);
    this.#changed = changed;
    this.#label = `${username}, connection ${number}`;
    this.#wire = framed ? "userwire.v1" : "raw";
    this.#log.setAttribute("aria-label", `Messages to ${this.#label}`);
    this.#remove.setAttribute("aria-label", `Remove ${this.#label}`);

    this.element = el(
      "article",
      { class: "card", "data-hue": hueOf(username), "aria-label": this.#label },
      el(
        "header",
        {},
        el("h3", {}, nameOf(username), el("span", { class: "number" }, `#${number}`)),
        this.#state,
      ),
      this.#about,
      el("div", { class: "body" }, this.#empty, this.#log),
      this.#frames.element,
      el("footer", {}, this.#toggle, this.#remove),
    );

    /** @type {import("./socket.js").Listener} */
    const listener = {
      state: (state) => this.#enter(state),
      message: (message) => {
        this.#count++;
        this.#show(drawMessage(message));
      },
      gap: (gap) => this.#show(drawGap(gap)),
      frame: (direction, data) => this.#frames.add(direction, data),
      hello: ({ conn, node }) => {
        this.#about.title = `Connection ${conn} on ${node}`;
        this.#about.dataset.node = node;
        this.#showAbout();
      },
    };
    this.#socket = framed
      ? new FramedSocket(username, listener, (text) => JSON.parse(text, keepDigits))
      : new RawSocket(username, listener);

    this.#toggle.addEventListener("click", () => {
      this.phase === "closed" ? this.#socket.open() : this.#socket.close();
    });
    this.#remove.addEventListener("click", () => removed(this));
    this.#showAbout();
  }

  open() {
    this.#socket.open();
  }

  /** Closes the socket and takes the card off the page. */
  remove() {
    this.#changed = () => {};
    this.#socket.close();
    this.element.remove();
  }

  #enter(/** @type {State} */ state) {
    const before = this.phase;
    this.phase = state.phase;
    clearInterval(this.#countdown);
    const waiting = state.phase === "closed" && state.retryAt !== undefined;
    this.element.dataset.state = waiting ? "waiting" : state.phase;

    if (state.phase === "closed") {
      const text = describe(state);
      const next = el("span", { class: "next" });
      this.#state.replaceChildren(el("span", { class: "dot" }), text);
      if (!state.byUs) this.#state.append(next);
      if (state.retryAt === undefined) setText(next, "Stays closed");
      else this.#countDown(state.retryAt, next);
      if (before !== "closed" && !state.byUs) announce(`${this.#label}: ${text}`);
    } else {
      const text = state.phase !== "open"
        ? "Connecting…"
        : state.byToken
        ? "Open, as the user of the token"
        : "Open";
      this.#state.replaceChildren(el("span", { class: "dot" }), text);
      if (state.phase === "open") {
        this.#resolveOpened();
        announce(`${this.#label}: ${text}`);
      }
    }

    const action = waiting
      ? "Reconnect now"
      : { open: "Disconnect", connecting: "Cancel", closed: "Reconnect" }[state.phase];
    setText(this.#toggle, action);
    this.#toggle.setAttribute("aria-label", `${action}: ${this.#label}`);
    this.#showEmpty();
    this.#changed(this);
  }

  #countDown(/** @type {number} */ until, /** @type {HTMLElement} */ where) {
    const show = () => setText(where, `Back in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s`);
    show();
    this.#countdown = setInterval(show, 250);
  }

  #showAbout() {
    const { node } = this.#about.dataset;
    setText(
      this.#about,
      [this.#wire, plural(this.#count, "message"), node ? `on ${node}` : ""].filter(Boolean).join(" · "),
    );
  }

  #showEmpty() {
    this.#empty.hidden = this.#list.childElementCount > 0;
    setText(this.#empty, this.phase === "open" ? "Waiting for a message" : "No messages");
  }

  #show(/** @type {HTMLLIElement} */ item) {
    this.#pending.push(item);
    // Frames are not drawn while the tab is hidden; what would fall off the list need not wait for them.
    if (this.#pending.length > KEPT_MESSAGES) this.#pending.shift();
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = false;
    this.#list.prepend(...this.#pending.reverse());
    this.#pending = [];
    while (this.#list.childElementCount > KEPT_MESSAGES) this.#list.lastElementChild?.remove();
    this.#showAbout();
    this.#showEmpty();
    // Starting the animation again needs the browser to have seen the card without it.
    this.element.classList.remove("arrived");
    void this.element.offsetWidth;
    this.element.classList.add("arrived");
  }
}

function describe(/** @type {Extract<State, { phase: "closed" }>} */ { code, why, opened, byUs }) {
  if (byUs) return "Disconnected";
  if (why === OFFLINE) return "Offline: back when the network is";
  if (!opened && code === 1006) return why || "Refused, or no answer";
  const meaning = CLOSE_MEANINGS.get(code);
  // The server's own reason says more than the table, unless it is only the table's in other words.
  return [`Closed ${code}`, why || meaning].filter(Boolean).join(": ");
}

function drawGap(/** @type {Gap} */ { t, from, to, count }) {
  const [noun, history] = t === "bgap" ? ["broadcast", "history of broadcasts"] : ["message", "history"];
  const what = count === null
    ? `The ${history} was lost: everything from seq ${from} on may be missing`
    : `${plural(count, noun)} came too late to be kept: seq ${from === to ? from : `${from} to ${to}`}`;
  return el("li", { class: "gap" }, what);
}

/**
 * A message as an item of a list.
 * @param {Message} message
 * @param {{ isBrief?: boolean }} [options] `isBrief`: on one line, where that is short enough.
 */
export function drawMessage(message, { isBrief = false } = {}) {
  const { kind, data, id, ts, seq, replayed, isBroadcast, group } = message;
  const json = kind === "json" ? briefly(data, isBrief) : kind === "text" ? layOut(String(data)) : undefined;
  const text = json ?? String(data);
  const sent = new Date(Number(ts ?? NaN));
  const meta = el("p", { class: "meta" }, timeOf(Number.isNaN(sent.getTime()) ? new Date() : sent));
  meta.append(
    el("span", { class: "kind" }, kind === "binary" ? "base64" : json === undefined ? "text" : "JSON"),
  );
  if (seq !== undefined) meta.append(el("span", { class: "seq" }, `seq ${seq}`));
  if (isBroadcast) meta.append(el("span", { class: "kind" }, "broadcast"));
  if (group !== undefined) meta.append(el("bdi", { class: "kind" }, `@${group}`));
  if (replayed) meta.append(el("span", { class: "kind" }, "replay"));
  if (id !== undefined) meta.append(el("code", { class: "id", title: `id ${id}` }, String(id)));
  return el("li", {}, meta, ...drawPayload(text));
}

function briefly(/** @type {unknown} */ data, /** @type {boolean} */ isBrief) {
  const line = isBrief ? JSON.stringify(data) : "";
  return isBrief && line.length <= BRIEF_CHARS ? line : JSON.stringify(data, null, 2);
}

/** @returns {HTMLElement[]} */
function drawPayload(/** @type {string} */ text) {
  const payload = el("pre", {}, text);
  if (text.length <= FOLD_CHARS && text.split("\n", FOLD_LINES + 1).length <= FOLD_LINES) return [payload];
  payload.classList.add("folded");
  const label = `Show all, ${sizeOf(new TextEncoder().encode(text).length)}`;
  const unfold = el("button", { type: "button", class: "quiet fold", "aria-expanded": "false" }, label);
  unfold.addEventListener("click", () => {
    const folded = payload.classList.toggle("folded");
    unfold.setAttribute("aria-expanded", String(!folded));
    setText(unfold, folded ? label : "Show less");
  });
  return [payload, unfold];
}
