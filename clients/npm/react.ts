/**
 * Userwire in React: one connection for all components, for as long as one of them uses it.
 *
 *     const { state } = useUserwire("https://push.example.com", { token });
 *     const messages = useMessages<Order>();
 *
 * The client is the module's, not a component's: StrictMode mounts each component twice, and a page that is left is often
 * followed by one that needs the same connection. So it is closed a moment after the last component has let go of it,
 * and the next one goes on where it was.
 */
// The build makes it the "react" of whoever installs the package.
// @ts-types="npm:@types/react@^19"
// deno-lint-ignore no-import-prefix -- the program needs none, and would fetch it
import { useEffect, useRef, useState, useSyncExternalStore } from "npm:react@^19";
import { SharedClient, type Snapshot, type UserwireOptions } from "./shared_client.ts";
import type { AddressLike, Message } from "./client.ts";

export type { Snapshot as Userwire, UserwireOptions } from "./shared_client.ts";

const shared = new SharedClient();
const WITHOUT_BROWSER: Snapshot = { state: "connecting", client: undefined, error: undefined };

/**
 * Connects while the component is mounted. All components of a page share one connection: those that give an address
 * give the same.
 * @param url As for `connect`.
 * @param options As for `connect`, and `account`. Of what changes only the address, `user` and `account` connect anew.
 * @returns Its state; the client, once there is one; and what was wrong last, until a connection opens.
 */
export function useUserwire(url: AddressLike, options: UserwireOptions): Snapshot {
  const newest = useRef(options);
  // Not while rendering: React may throw a rendering away.
  useEffect(() => {
    newest.current = options;
  });
  const address = typeof url === "string" ? url : url.href;
  const who = "user" in options ? options.user : options.account;
  useEffect(() => shared.use(address, who, () => newest.current), [address, who]);
  return useSyncExternalStore(shared.onChange, shared.snapshot, () => WITHOUT_BROWSER);
}

/**
 * The messages that came while the component was mounted, oldest first.
 * @param options.filter Which of them; may change from one rendering to the next, and counts for what comes then.
 * @param options.limit At most so many, the newest. @default 100
 */
export function useMessages<Data = unknown>(
  options: { readonly filter?: (message: Message<Data>) => boolean; readonly limit?: number } = {},
): readonly Message<Data>[] {
  const [messages, setMessages] = useState<readonly Message<Data>[]>([]);
  const newest = useRef(options);
  useEffect(() => {
    newest.current = options;
  });
  useEffect(() =>
    shared.onMessage((message) => {
      const { filter, limit = 100 } = newest.current;
      if (filter && !filter(message as Message<Data>)) return;
      setMessages((before) => [...before, message as Message<Data>].slice(-limit));
    }), []);
  return messages;
}
