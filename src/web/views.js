/**
 * The views of the page, one of which is shown: the fragment of the address says which, so that they can be linked to and
 * left with the browser's way back. A view may be told when it is shown, and when it is no more.
 */
import { byId } from "./dom.js";

/** @typedef {{ shown?: () => void, left?: () => void }} View */

/** @type {Map<string, View>} */
const views = new Map();
let current = "";

/** Adds a view: the section and the link of that id are in the document. @param {string} id @param {View} view */
export function addView(id, view) {
  views.set(id, view);
}

/** Shows a view, in the address too. */
export function goTo(/** @type {string} */ id) {
  if (location.hash === `#${id}`) return show(id);
  location.hash = id;
}

/**
 * Begins.
 * @param {string} first The view that an address without one leads to.
 */
export function openViews(first) {
  const follow = () => {
    const asked = location.hash.slice(1);
    // Another fragment, such as a user to begin with, is none of ours.
    show(views.has(asked) ? asked : first);
  };
  addEventListener("hashchange", () => {
    follow();
    const view = byId(`${current}-view`);
    // Who hears the page learns where they are, unless the view has begun with something else.
    if (!view.contains(document.activeElement)) view.querySelector("h2")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  });
  follow();
}

function show(/** @type {string} */ id) {
  if (id === current) return;
  views.get(current)?.left?.();
  current = id;
  for (const each of views.keys()) {
    byId(`${each}-view`).hidden = each !== id;
    const link = byId(`to-${each}`);
    if (each === id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  views.get(id)?.shown?.();
}
