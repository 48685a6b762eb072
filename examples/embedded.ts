/** A program that holds Userwire itself: it answers what clients ask, and greets who comes online. */
import { loadConfig, RequestError, serve } from "../src/mod.ts";

const service = await serve(loadConfig({ env: Deno.env.toObject() }), {
  onRequest({ user, op, data }) {
    if (op !== "order") throw new RequestError(`Nobody answers "${op}"`, "unknown_op");
    return { ordered: data, by: user };
  },
  async onUsersChanged(changes = []) {
    for (const { user, online } of changes) {
      if (online) await service.app.publisher.send(user, `Hello ${user}`);
    }
  },
});
Deno.addSignalListener("SIGTERM", () => service.shutdown());
