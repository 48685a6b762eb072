/**
 * Elements and words for the page. Whatever comes from outside (usernames, payloads, server texts) goes in as
 * text nodes and plain attributes, never as markup: nothing in the page writes HTML.
 */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * The element of the document with this id.
 * @template {HTMLElement} [Type=HTMLElement]
 * @param {string} id
 * @returns {Type}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`The document has no element with the id "${id}"`);
  return /** @type {Type} */ (element);
}

/** Sets text only where it differs, so that live regions stay silent when nothing changed. */
export function setText(/** @type {Node} */ node, /** @type {string} */ text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says something to screen readers, for changes that a sighted user sees elsewhere. */
export function announce(/** @type {string} */ text) {
  byId("announcer").textContent = text;
}

/** A username, kept apart from the direction of the text around it. */
export function nameOf(/** @type {string} */ username) {
  return el("bdi", { class: "name", "data-hue": hueOf(username), title: username }, username);
}

/** One of eight colours, always the same for the same name. */
export function hueOf(/** @type {string} */ username) {
  let hash = 1;
  for (const char of username) hash = (hash * 31 + (char.codePointAt(0) ?? 0)) >>> 0;
  return String(((hash ^ (hash >>> 3)) >>> 0) % 8);
}

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});

/** The time of day in a `time` element. */
export function timeOf(/** @type {Date} */ date) {
  return el("time", { datetime: date.toISOString() }, clock.format(date));
}

const seconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});

/** "14:03:05" today, with its date before. */
export function clockOf(/** @type {number} */ at) {
  const date = new Date(at);
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? seconds.format(date) : `${date.toLocaleDateString()} ${seconds.format(date)}`;
}

/** "1 socket", "2 sockets". */
export function plural(/** @type {number} */ count, /** @type {string} */ noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** "812 bytes", "63.4 KiB". */
export function sizeOf(/** @type {number} */ bytes) {
  return bytes < 1024 ? plural(bytes, "byte") : `${(bytes / 1024).toFixed(1)} KiB`;
}

/**
 * Text laid out as JSON when it is an object or an array, else undefined. Numbers keep the digits they came
 * with where the browser allows it: a console must not show 12345678901234567000 for …890.
 */
export function layOut(/** @type {string} */ text) {
  if (!/^\s*[[{]/.test(text)) return undefined;
  try {
    return JSON.stringify(JSON.parse(text, keepDigits), null, 2);
  } catch {
    return undefined; // Not JSON: the caller shows it as it came.
  }
}

/** A reviver for `JSON.parse`: a number that would change on the way is kept as its source text. */
export function keepDigits(
  /** @type {string} */ _key,
  /** @type {unknown} */ value,
  /** @type {{ source?: string } | undefined} */ context = undefined,
) {
  const source = context?.source;
  const changes = typeof value === "number" && source !== undefined && String(value) !== source;
  return changes && "rawJSON" in JSON ? /** @type {any} */ (JSON).rawJSON(source) : value;
}
