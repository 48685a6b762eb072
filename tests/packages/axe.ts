/** Finds what in a page keeps people out who do not see it, or not well, or have no mouse. */
export { default as axe } from "npm:axe-core@4.14.1";
