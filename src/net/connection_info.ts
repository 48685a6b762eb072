/** What the server knows of the connection that a request came by, and of what becomes of its answer. */
export type ConnectionInfo = Deno.ServeHandlerInfo<Deno.NetAddr>;
