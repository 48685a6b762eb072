/**
 * Makes of a runtime what phone apps have, in React Native: an `URL` that keeps its address as it was given and can only be
 * read as a whole, and no `crypto`, `navigator` or `location`. To be loaded before a program:
 *
 *     deno run --preload bare_runtime.js program.js
 */
class BareURL {
  #address;

  constructor(/** @type {string} */ address) {
    this.#address = address.replace(/^(\w+:\/\/[^/]+)$/, "$1/");
  }

  get href() {
    return this.#address;
  }

  toString() {
    return this.#address;
  }
}

for (const name of ["protocol", "host", "origin", "pathname", "search", "searchParams", "hash"]) {
  Object.defineProperty(BareURL.prototype, name, {
    get() {
      throw new Error(`URL.${name} is not implemented`);
    },
  });
}

const { URL, fetch } = globalThis;
const use = (/** @type {unknown} */ value) =>
  Object.defineProperty(globalThis, "URL", { value, configurable: true });
use(BareURL);
// The runtime's own takes addresses apart by the global `URL`, before it returns.
globalThis.fetch = (...args) => {
  use(URL);
  const answer = fetch(...args);
  use(BareURL);
  return answer;
};
for (const name of ["crypto", "navigator", "location"]) {
  Object.defineProperty(globalThis, name, { value: undefined });
}
