/**
 * The frame of a benchmark: whatever its body started is ended when it returns, throws, or the process is told to
 * stop, and nothing else is.
 */

const CLEAN_UP_MS = 8_000;

/**
 * Runs the body and sets the exit code: 0 for true, 1 for false or an error, whose message is printed.
 * @param body Gives everything it starts to `own`.
 */
export async function runBenchmark(
  body: (own: (started: AsyncDisposable) => void) => Promise<boolean>,
): Promise<void> {
  const stack = new AsyncDisposableStack();
  const stop = () => {
    console.error("Stopping");
    const timer = setTimeout(() => Deno.exit(130), CLEAN_UP_MS);
    stack.disposeAsync().finally(() => {
      clearTimeout(timer);
      Deno.exit(130);
    });
  };
  Deno.addSignalListener("SIGINT", stop);
  Deno.addSignalListener("SIGTERM", stop);
  try {
    Deno.exitCode = await body((started) => stack.use(started)) ? 0 : 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exitCode = 1;
  } finally {
    await stack.disposeAsync();
    Deno.removeSignalListener("SIGINT", stop);
    Deno.removeSignalListener("SIGTERM", stop);
  }
}

/** A folder that goes away at the end. */
export async function scratchFolder(own: (started: AsyncDisposable) => void): Promise<string> {
  const dir = await Deno.makeTempDir({ prefix: "userwire-bench-" });
  own({ [Symbol.asyncDispose]: () => Deno.remove(dir, { recursive: true }) });
  return dir;
}
