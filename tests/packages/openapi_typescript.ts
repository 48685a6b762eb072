// deno-lint-ignore-file no-import-prefix -- see README.md beside this
// Its peer.
import "npm:typescript@5.9.3";
export { astToString, default } from "npm:openapi-typescript@7.13.0";
