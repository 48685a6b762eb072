/** Settings for a test, as `serve` reads them. */
export { loadConfig } from "../src/config/load.ts";
