// @ts-self-types="./mod.d.ts"
/**
 * Stand-in for `jsr:@std/assert`, for machines that cannot reach JSR. The code is std's own, taken from npm;
 * only the types, which npm's copy lacks, are written here. See ../README.md.
 */
export * from "npm:deno-std@1.4.0/assert/mod.js";
