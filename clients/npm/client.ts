/** The client as the package has it: `userwire`. The build leaves it out of `userwire/react`, so that there is one. */
export * from "../../src/client/mod.ts";
