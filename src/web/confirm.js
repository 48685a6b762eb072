/** Asks before something is done that can't be undone. */
import { byId, setText } from "./dom.js";

/**
 * @param {string} question
 * @param {string} action What the button says that does it.
 * @returns {Promise<boolean>} Whether it is to be done.
 */
export function confirmed(question, action) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("confirm"));
  setText(byId("confirm-question"), question);
  setText(byId("confirm-yes"), action);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
