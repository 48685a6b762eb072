// A backend with a login, in Node and with no package but userwire. It trusts whoever says a name: yours knows better.
import { createHmac, randomUUID } from "node:crypto";
import { createServer as createHttpServer } from "node:http";
import { text } from "node:stream/consumers";
import { createServer } from "userwire/server";

const { USERWIRE_JWT_SECRET, USERWIRE_KEY, USERWIRE_URL = "http://127.0.0.1:8765", PORT = "3000" } = process.env;
if (!USERWIRE_JWT_SECRET || !USERWIRE_KEY) throw new Error("Set USERWIRE_JWT_SECRET and USERWIRE_KEY");
const userwire = createServer({ url: USERWIRE_URL, key: USERWIRE_KEY });

/** Who is logged in, by the cookie of the session. */
const sessions = new Map();
let orders = 0;

/** A token that lets its user in for ten minutes. */
function tokenFor(user) {
  const now = Math.floor(Date.now() / 1000);
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const head = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub: user, iat: now, exp: now + 600 })}`;
  return `${head}.${createHmac("sha256", USERWIRE_JWT_SECRET).update(head).digest("base64url")}`;
}

const routes = {
  async "POST /api/login"(request, response) {
    const id = randomUUID();
    sessions.set(id, await text(request));
    response.setHeader("set-cookie", `session=${id}; HttpOnly; SameSite=Lax; Path=/`);
    return "";
  },
  "GET /api/token": (_request, response, user) => {
    response.setHeader("cache-control", "no-store");
    return tokenFor(user);
  },
  async "POST /api/order"(_request, _response, user) {
    const { sockets } = await userwire.send(user, { order: ++orders });
    return `sent to ${sockets} sockets`;
  },
};

createHttpServer(async (request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  const user = sessions.get(/session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1]);
  try {
    if (!route) response.statusCode = 404;
    else if (user === undefined && request.url !== "/api/login") response.statusCode = 401;
    else return response.end(await route(request, response, user));
    response.end();
  } catch (error) {
    console.error(error);
    response.writeHead(502).end(error.message);
  }
}).listen(Number(PORT), "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}`));
