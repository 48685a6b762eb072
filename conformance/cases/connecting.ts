/** How a client connects, says who it is, and takes a refusal. */
import type { Case } from "../case.ts";
import type { Stage } from "../stage.ts";

const SECTION = "connecting";
/** Each byte of it must be encoded in an address, or is taken for something else there. */
const HARD_NAME = "zoë+&/%=?#ü😀";

export const CONNECTING: readonly Case[] = [
  {
    name: "handshake",
    rule: "connects to / or /ws with a WebSocket handshake of version 13",
    section: SECTION,
    async play(stage) {
      const { method, url, headers } = (await stage.start()).head;
      const { pathname } = url;
      stage.expect(method === "GET", `it calls with ${method}`);
      stage.expect(pathname === "/" || pathname === "/ws", `it connects to ${pathname}`);
      stage.expect(headers.get("upgrade")?.toLowerCase() === "websocket", "it asks for no upgrade");
      const version = headers.get("sec-websocket-version");
      stage.expect(version === "13", `it speaks version ${version}`);
    },
  },
  {
    name: "subprotocol",
    rule: "offers the subprotocol userwire.v1, and no other but its token",
    section: SECTION,
    async play(stage) {
      const { protocols } = await stage.start("token");
      const [known, others] = [
        protocols.includes("userwire.v1"),
        protocols.filter((name) => name !== "userwire.v1"),
      ];
      const isSound = known && others.every((name) => name.startsWith("userwire.bearer."));
      stage.expect(isSound, `it offers ${protocols.join(", ") || "none"}`);
    },
  },
  {
    name: "username",
    rule: "percent-encodes the username as UTF-8",
    section: SECTION,
    async play(stage) {
      const { url } = (await stage.start("user", HARD_NAME)).head;
      const name = url.searchParams.get("username");
      stage.expect(name === HARD_NAME, `"${HARD_NAME}" comes as "${name}" in ${url.search}`);
    },
  },
  {
    name: "token",
    rule:
      "shows its token in the header, as a subprotocol in base64url without padding, or a ticket as ?ticket=",
    section: SECTION,
    async play(stage) {
      const { token, protocols } = await stage.start("token");
      stage.expect(token === stage.tokens.at(-1), `it shows "${token}" in place of "${stage.tokens.at(-1)}"`);
      const isPadded = protocols.some((name) => name.startsWith("userwire.bearer.") && /[=+/]/.test(name));
      stage.expect(!isPadded, "its subprotocol is not base64url without padding");
    },
  },
  {
    name: "ticket-once",
    rule: "shows a new ticket when the last one has let a connection in",
    section: SECTION,
    async play(stage) {
      const first = await stage.open({ pos: "e.0" }, "token");
      first.bye(1012, "restart", 0);
      const second = await stage.handshake();
      stage.expect(second.token !== first.token, "it shows the same one again");
      stage.expect(
        second.token === stage.tokens.at(-1),
        `it shows "${second.token}", which it was not given`,
      );
    },
  },
  {
    name: "late-answer",
    rule: "waits for the answer to the handshake",
    section: SECTION,
    async play(stage) {
      const peer = await stage.start();
      await peer.acceptSlowly(300);
      peer.hi({ pos: "e.0" });
      peer.message(1);
      await stage.wrote({ seq: 1, data: 1 });
      stage.expect(stage.attempts === 1, "it has connected twice");
    },
  },
  {
    name: "no-answer",
    rule: "comes back when the connection ends before the handshake is answered",
    section: SECTION,
    async play(stage) {
      (await stage.start()).cut();
      await stage.handshake();
    },
  },
  ...[400, 403, 404, 405, 421, 426].map((status): Case => ({
    name: `refused-${status}`,
    rule: `stops when the handshake is refused with ${status}`,
    section: SECTION,
    needsStatus: true,
    async play(stage) {
      (await stage.start()).refuse(status);
      await stage.ends();
    },
  })),
  {
    name: "refused-401",
    rule: "gets a new token when the handshake is refused with 401, or stops",
    section: SECTION,
    needsStatus: true,
    async play(stage) {
      const first = await stage.start("token");
      first.refuse(401);
      const second = await stage.handshake().catch(async (error) => {
        await stage.ends().catch(() => {
          throw error;
        });
      });
      stage.expect(second?.token !== first.token, "it shows the same one again");
    },
  },
  ...[429, 503].map((status): Case => ({
    name: `refused-${status}`,
    rule: `comes back after Retry-After when the handshake is refused with ${status}`,
    section: SECTION,
    needsStatus: true,
    play: (stage) => comesBackAfter(stage, status),
  })),
];

async function comesBackAfter(stage: Stage, status: number): Promise<void> {
  const first = await stage.start();
  first.refuse(status, { "retry-after": "1" });
  const second = await stage.handshake(1_000 + stage.patienceMs);
  const ms = second.at - first.closedAt!;
  stage.expect(ms >= 990, `it was told to wait 1 s, and came after ${Math.round(ms)} ms`);
}
