/** Sleeping until something happens, without a trace of it. */
import { assertEquals } from "@std/assert";
import { sleep } from "../../src/async/sleep.ts";

/** How many listeners a signal has. */
function counted(signal: AbortSignal): { listeners: number } {
  const state = { listeners: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    state.listeners++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    state.listeners--;
    removeEventListener.apply(signal, args);
  };
  return state;
}

Deno.test("A sleep ends when its time is up, a promise resolves or a signal aborts", async () => {
  const never = new Promise<void>(() => {});
  await sleep(1);
  await sleep(1, never);
  await sleep(Infinity, never, Promise.resolve());
  const controller = new AbortController();
  const asleep = sleep(Infinity, never, controller.signal);
  controller.abort();
  await asleep;
  await sleep(Infinity, never, controller.signal);
});

Deno.test("A thousand sleeps leave no listener of what lasts longer", async () => {
  const { signal } = new AbortController();
  const state = counted(signal);
  await Promise.all(
    Array.from({ length: 1_000 }, (_, i) => sleep(i % 2 ? 0 : Infinity, Promise.resolve(), signal)),
  );
  assertEquals(state.listeners, 0);
});
