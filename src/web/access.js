/**
 * What a service in closed mode wants to be shown: a key for sending, a token for connecting. Kept in the two fields
 * and nowhere else: in no address, no storage, no curl command.
 */
import { byId } from "./dom.js";

/** The API key, or "". */
export function accessKey() {
  return /** @type {HTMLInputElement} */ (byId("access-key")).value.trim();
}

/** The token of a socket, or "". */
export function accessToken() {
  return /** @type {HTMLInputElement} */ (byId("access-token")).value.trim();
}

/** Shows the fields where they are needed. */
export function showAccess(/** @type {boolean} */ isNeeded) {
  byId("access").hidden = !isNeeded;
}
