/** Who listens for what. What a listener throws is an uncaught error, and disturbs nobody else. */

type Listeners<Events> = { [Name in keyof Events]?: Set<(detail: Events[Name]) => void> };

export class Emitter<Events> {
  readonly #listeners: Listeners<Events> = {};

  /** @returns Ends that. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void {
    const listeners = this.#listeners[name] ??= new Set();
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /** Whether anybody listens for it. */
  has(name: keyof Events): boolean {
    return !!this.#listeners[name]?.size;
  }

  emit<Name extends keyof Events>(name: Name, detail: Events[Name]): void {
    for (const listener of [...this.#listeners[name] ?? []]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
