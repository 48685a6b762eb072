/** Calls of the HTTP API, with the key that stands in its field; what can't be answered comes back as words. */
import { accessKey } from "./access.js";
import { keepDigits } from "./dom.js";

const TIMEOUT_MS = 15_000;

/** The headers of a call: a key is shown there, and never in an address. @returns {Record<string, string>} */
export function authorized(/** @type {Record<string, string>} */ headers = {}) {
  const key = accessKey();
  return key === "" ? headers : { ...headers, authorization: `Bearer ${key}` };
}

/** What a call failed with: a sentence for people. */
export class CallError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when there was no answer.
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body] Sent as JSON.
 * @returns {Promise<any>}
 * @throws {CallError}
 */
export async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: authorized(body === undefined ? {} : { "content-type": "application/json" }),
      body: body === undefined ? null : JSON.stringify(body),
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    const isLate = error instanceof DOMException && error.name === "TimeoutError";
    throw new CallError(
      isLate ? `No answer within ${TIMEOUT_MS / 1_000} s` : "This address does not answer",
      0,
    );
  }
  const text = await response.text().catch(() => "");
  if (!response.ok) throw refusalOf(response, text);
  return text === "" ? undefined : JSON.parse(text, keepDigits);
}

/** What an answer that says no is told as. @returns {CallError} */
export function refusalOf(/** @type {Response} */ response, /** @type {string} */ text) {
  let detail = response.statusText;
  try {
    detail = JSON.parse(text).detail ?? detail;
  } catch {
    // A proxy in between answers in words of its own.
  }
  return new CallError(`${detail} (${response.status})`, response.status);
}

/** A path with a name in it. @param {TemplateStringsArray} parts @param {...string} names */
export function path(parts, ...names) {
  return String.raw(
    { raw: parts },
    ...names.map((name) => encodeURIComponent(name.toWellFormed?.() ?? name)),
  );
}
