/** What the options of the benchmarks have in common. */

/**
 * Reads the value of an option.
 * @param name As it is given on the command line: `--sockets`.
 * @throws {Error} when it is no whole number, or none within the bounds, which are allowed themselves.
 */
export function wholeNumber(name: string, given: string, [min, max]: readonly [number, number]): number {
  const value = Number(given);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new Error(`${name} must be a whole number from ${min} to ${max}, but is "${given}": correct it`);
}
