/**
 * Small charts of the last minutes: lines in an SVG, and beside them a table with their names and numbers, which is what
 * says the same to who does not see the lines. All of them share one moment that is looked at.
 */
import { el, setText } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 120;

/**
 * @typedef {{ name: string, values: (number | undefined)[], show: (value: number) => string, total?: string }} Line
 *   `values`: one for each moment, undefined where nothing is known. `total`: since the start of the node.
 * @typedef {{ title: string, unit: string, lines: Line[] }} Picture
 */

export class Chart {
  #svg = drawn("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  #cursor = drawn("line", { class: "cursor", y1: "0", y2: String(HEIGHT) });
  #top = el("span", { class: "top-label", "aria-hidden": "true" });
  #left = el("span", {});
  #title = el("h3", {});
  #body = el("tbody", {});
  #plot = el("div", { class: "plot" });
  #when;
  /** @type {Picture | undefined} */
  #picture;
  #moment = 0;

  /** @param {string} id @param {(moment: number | undefined) => void} look A share of the width, 0 to 1, is pointed at. */
  constructor(id, look) {
    this.#plot.append(this.#svg, this.#top);
    const head = el(
      "tr",
      {},
      el("th", { scope: "col" }, el("span", { class: "sr-only" }, "What")),
      el("th", { scope: "col", class: "number" }, "then"),
      el("th", { scope: "col", class: "number" }, "since start"),
    );
    this.#title.id = `${id}-title`;
    this.#when = /** @type {HTMLElement} */ (head.children[1]);
    this.element = el(
      "section",
      { class: "chart", id, "aria-labelledby": this.#title.id },
      this.#title,
      this.#plot,
      el("p", { class: "axis", "aria-hidden": "true" }, this.#left, el("span", {}, "now")),
      el("table", { "aria-labelledby": this.#title.id }, el("thead", {}, head), this.#body),
    );
    this.#plot.addEventListener("pointermove", (event) => {
      const { left, width } = this.#plot.getBoundingClientRect();
      look(Math.min(1, Math.max(0, (event.clientX - left) / width)));
    });
    this.#plot.addEventListener("pointerleave", () => look(undefined));
  }

  /** @param {Picture} picture @param {number[]} times The moments, in Unix milliseconds. @param {number} spanMs What the width stands for. */
  draw(picture, times, spanMs) {
    this.#picture = picture;
    const { title, unit, lines } = picture;
    this.#title.replaceChildren(title, el("span", { class: "unit" }, unit));
    const known = lines.flatMap(({ values }) => values.filter((value) => value !== undefined));
    const top = ceiling(Math.max(0, ...known));
    setText(this.#left, `${Math.round(spanMs / 60_000)} min ago`);
    setText(this.#top, lines[0]?.show(top) ?? "");
    const end = times.at(-1) ?? 0;
    const x = (/** @type {number} */ at) => WIDTH * (1 - (end - at) / spanMs);
    const grid = [0, 0.5, 1].map((share) => {
      const y = String(Math.min(HEIGHT - 0.5, Math.max(0.5, HEIGHT * share)));
      return drawn("line", { class: "grid", x1: "0", x2: String(WIDTH), y1: y, y2: y });
    });
    const paths = lines.map(({ values }, i) => {
      let d = "";
      let isDown = false;
      for (const [at, value] of values.entries()) {
        if (value === undefined) {
          isDown = false;
          continue;
        }
        const y = HEIGHT - 1 - (HEIGHT - 4) * value / top;
        const isAlone = !isDown && values[at + 1] === undefined;
        d += `${isDown ? "L" : "M"}${x(times[at] ?? 0).toFixed(1)} ${y.toFixed(1)}${isAlone ? "h1.5" : ""}`;
        isDown = true;
      }
      return drawn("path", { class: `line line-${i}`, d });
    });
    this.#svg.replaceChildren(...grid, ...paths.reverse(), this.#cursor);
    this.#x = times.map(x);
    this.look(Math.min(this.#moment, times.length - 1));
  }

  /** @type {number[]} */
  #x = [];

  /** Shows the numbers of a moment. @param {number | undefined} moment Its place among them; undefined when nothing is live. */
  look(moment) {
    this.#moment = moment ?? 0;
    const isLast = moment === this.#x.length - 1;
    const x = String(this.#x[this.#moment] ?? WIDTH);
    this.#cursor.setAttribute("x1", x);
    this.#cursor.setAttribute("x2", x);
    this.#cursor.toggleAttribute("hidden", moment === undefined || isLast);
    setText(this.#when, isLast || moment === undefined ? "now" : "then");
    const rows = (this.#picture?.lines ?? []).map(({ name, values, show, total }, i) => {
      const value = moment === undefined ? undefined : values[moment];
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, el("span", { class: `swatch line-${i}` }), name),
        el("td", { class: "number" }, value === undefined ? "–" : show(value)),
        el("td", { class: "number" }, moment === undefined ? "–" : total ?? ""),
      );
    });
    this.#body.replaceChildren(...rows);
  }
}

/** The next round number: what a scale may end with. */
function ceiling(/** @type {number} */ value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 3, 4, 5, 6, 8]) if (value <= step * power) return step * power;
  return 10 * power;
}

/** @param {string} tag @param {Record<string, string>} attributes */
function drawn(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
