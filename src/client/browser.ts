/** What a browser says of its network and of the page. Other runtimes say nothing: what they lack is passed over. */

export interface BrowserNews {
  onOffline(): void;
  onOnline(): void;
  onVisibility(): void;
}

/** Listens from now on. @returns Ends that. */
export function listenToBrowser({ onOffline, onOnline, onVisibility }: BrowserNews): () => void {
  const each = (method: "addEventListener" | "removeEventListener") => {
    // Node's global object takes no listeners, and workers have no document.
    globalThis[method]?.("offline", onOffline);
    globalThis[method]?.("online", onOnline);
    page()?.[method]("visibilitychange", onVisibility);
  };
  each("addEventListener");
  return () => each("removeEventListener");
}

/** Whether the browser knows of no network; its word may be wrong. */
export function isOffline(): boolean {
  return (globalThis.navigator as { onLine?: boolean } | undefined)?.onLine === false;
}

export function isHidden(): boolean {
  return page()?.visibilityState === "hidden";
}

function page(): (EventTarget & { visibilityState: string }) | undefined {
  return (globalThis as { document?: ReturnType<typeof page> }).document;
}
