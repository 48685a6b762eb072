/**
 * What a service in closed mode wants to be shown: a key for sending, a token or a ticket for connecting. Key and token
 * are kept in their two fields and nowhere else; nothing of it is put into an address, a storage or a curl command.
 */
import { byId } from "./dom.js";

const valueOf = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id)).value.trim();

/** The API key, or "". */
export const accessKey = () => valueOf("access-key");

/** Whether nothing is answered for want of one. */
export const lacksKey = () => !byId("access").hidden && accessKey() === "";

/** The token, which says by itself whose it is; or "". */
export const accessToken = () => valueOf("access-token");

/**
 * What a socket of the user shows: the token in its field; else a ticket, which the key buys and which is good for one
 * socket. The fields are read at each attempt, so that what was corrected there counts at the next one. Undefined in
 * open mode, where nobody has to show anything.
 * @returns {(() => Promise<string>) | undefined}
 */
export function accessOf(/** @type {string} */ username) {
  if (byId("access").hidden) return undefined;
  return async () => {
    const token = accessToken();
    if (token !== "") return token;
    const key = accessKey();
    if (key === "") throw new Error("Closed mode: an API key or a token is needed, in the fields above");
    return await buyTicket(username, key);
  };
}

/** Shows the fields where they are needed. */
export function showAccess(/** @type {boolean} */ isNeeded) {
  byId("access").hidden = !isNeeded;
}

/** @returns {Promise<string>} */
async function buyTicket(/** @type {string} */ user, /** @type {string} */ key) {
  const response = await fetch("/v1/tickets", {
    method: "POST",
    headers: { "content-type": "application/json", "authorization": `Bearer ${key}` },
    body: JSON.stringify({ user }),
    cache: "no-store",
    signal: AbortSignal.timeout(10_000),
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer.ticket;
  throw new Error(`${answer.detail ?? response.statusText} (${response.status})`);
}
