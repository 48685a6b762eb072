/** A document that the test hides and shows. */
export class FakeDocument extends EventTarget implements Disposable {
  visibilityState = "visible";

  constructor() {
    super();
    Object.defineProperty(globalThis, "document", { value: this, configurable: true });
  }

  turn(visibilityState: "hidden" | "visible"): void {
    this.visibilityState = visibilityState;
    this.dispatchEvent(new Event("visibilitychange"));
  }

  [Symbol.dispose](): void {
    delete (globalThis as { document?: unknown }).document;
  }
}
