/** What goes over one wire, both ways, as it is: folded away until somebody asks for it, and the newest of it only. */
import { el, setText, sizeOf, timeOf } from "./dom.js";

const KEPT = 200;
const MAX_CHARS = 2_000;

export class FrameLog {
  #list = el("ol", { class: "frames" });
  #title = el("summary", {}, "Frames");
  /** @type {{ direction: "up" | "down", data: unknown, at: Date }[]} */
  #frames = [];
  #count = 0;
  #isDrawing = false;

  constructor() {
    const area = el(
      "div",
      { class: "frames-area", tabindex: "0", role: "region", "aria-label": "Frames" },
      this.#list,
    );
    this.element = el("details", { class: "frame-log" }, this.#title, area);
    this.element.addEventListener("toggle", () => this.#draw());
  }

  /** @param {"up" | "down"} direction To the service, or from it. @param {unknown} data */
  add(direction, data) {
    this.#count++;
    this.#frames.unshift({ direction, data, at: new Date() });
    if (this.#frames.length > KEPT) this.#frames.pop();
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#isDrawing = false;
    setText(this.#title, `Frames (${this.#count})`);
    if (!this.element.open) return;
    this.#list.replaceChildren(...this.#frames.map(({ direction, data, at }) =>
      el(
        "li",
        { "data-direction": direction },
        el("span", { class: "arrow", "aria-hidden": "true" }, direction === "up" ? "↑" : "↓"),
        el("span", { class: "sr-only" }, direction === "up" ? "sent" : "received"),
        timeOf(at),
        el("code", {}, wordsOf(direction, data)),
      )
    ));
  }
}

/** A frame as text. What lets somebody in is no part of it: pages are shown to others. */
function wordsOf(/** @type {"up" | "down"} */ direction, /** @type {unknown} */ data) {
  if (typeof data !== "string") {
    return `binary, ${
      sizeOf(data instanceof ArrayBuffer ? data.byteLength : /** @type {Blob} */ (data).size)
    }`;
  }
  const text = direction === "up" ? data.replace(/"token":\s*"[^"]*"/, '"token":"…"') : data;
  return text.length <= MAX_CHARS ? text : `${text.slice(0, MAX_CHARS)}… (${sizeOf(text.length)})`;
}
