/**
 * Types for the copy of std's assertions on npm, which has none. Signatures agree with `@std/assert` 1, and
 * nothing is declared here that the original lacks, so that code which passes here passes there.
 */

/** A class, abstract or not, whose instances are `T`. */
type ClassOf<T> = abstract new (...args: never[]) => T;

/** What a falsy value can be. */
export type Falsy = false | 0 | 0n | "" | null | undefined;

/** Array, typed array or the like, but not a string. */
export type ArrayLikeArg<T> = ArrayLike<T> & object;

/** Thrown by every assertion that does not hold. */
export class AssertionError extends Error {
  constructor(message: string, options?: ErrorOptions);
}

/** Whether two values are deeply equal. */
export function equal(a: unknown, b: unknown): boolean;

/** Holds when `expr` is truthy. */
export function assert(expr: unknown, msg?: string): asserts expr;

/** Holds when `expr` is falsy. */
export function assertFalse(expr: unknown, msg?: string): asserts expr is Falsy;

/** Holds when both are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void;

/** Holds when they are not deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void;

/** Holds when `Object.is` says both are the same. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T;

/** Holds when `Object.is` says they differ. */
export function assertNotStrictEquals<T>(actual: T, expected: T, msg?: string): void;

/**
 * Holds when the numbers are close.
 * @param tolerance Largest difference allowed.
 * @default {1e-7 of `expected`}
 */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void;

/** Holds when `actual` is neither null nor undefined. */
export function assertExists<T>(actual: T, msg?: string): asserts actual is NonNullable<T>;

/** Holds when `actual` is an instance of the class. */
export function assertInstanceOf<T extends ClassOf<unknown>>(
  actual: unknown,
  expectedType: T,
  msg?: string,
): asserts actual is InstanceType<T>;

/** Holds when `actual` is not an instance of the class. */
export function assertNotInstanceOf<A, T>(
  actual: A,
  unexpectedType: ClassOf<T>,
  msg?: string,
): asserts actual is Exclude<A, T>;

/** Holds when the text contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void;

/** Holds when each element of `expected` occurs in `actual`. */
export function assertArrayIncludes<T>(
  actual: ArrayLikeArg<T>,
  expected: ArrayLikeArg<T>,
  msg?: string,
): void;

/** Holds when the text matches. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void;

/** Holds when the text does not match. */
export function assertNotMatch(actual: string, expected: RegExp, msg?: string): void;

/** Holds when every property of `expected` is in `actual`, deeply. */
export function assertObjectMatch(
  // deno-lint-ignore no-explicit-any -- only `any` lets values of interface types in, as the original does
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void;

/** Holds when `actual` > `expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void;

/** Holds when `actual` >= `expected`. */
export function assertGreaterOrEqual<T>(actual: T, expected: T, msg?: string): void;

/** Holds when `actual` < `expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void;

/** Holds when `actual` <= `expected`. */
export function assertLessOrEqual<T>(actual: T, expected: T, msg?: string): void;

/** Holds when `error` is an error, of the class and with the text if they are given. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ClassOf<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E;

/**
 * Holds when `fn` throws.
 * @returns What was thrown.
 */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Holds when `fn` throws an error of the class, with the text in its message if one is given. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ClassOf<E>,
  msgIncludes?: string,
  msg?: string,
): E;

/**
 * Holds when the promise that `fn` returns is rejected. A `fn` that throws does not count.
 * @returns The reason.
 */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Holds when the promise is rejected with an error of the class, with the text in its message if one is given. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ClassOf<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;

/** Always throws. */
export function fail(msg?: string): never;

/** Always throws: this part is yet to be written. */
export function unimplemented(msg?: string): never;

/** Always throws: the program must not get here. */
export function unreachable(msg?: string): never;
