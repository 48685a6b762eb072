/** What waits for a client, byte by byte: real sockets don't stop at a byte. */
import { assertEquals } from "@std/assert";
import { SendBuffer } from "../../src/session/send_buffer.ts";
import { StubSocket } from "../../testkit/stub_socket.ts";

/** A buffer for 100 bytes. */
function make(): { client: StubSocket; buffer: SendBuffer } {
  const client = new StubSocket();
  return { client, buffer: new SendBuffer(client.socket, 100) };
}

Deno.test("A buffer holds as much as it may and no more, but for a large frame that goes alone", () => {
  const { client, buffer } = make();
  assertEquals([buffer.write("x".repeat(60)), buffer.write("x".repeat(40))], [true, true]);
  assertEquals([buffer.write("x"), client.bufferedAmount], [false, 100]);
  client.take(99);
  assertEquals(buffer.write("x".repeat(100)), false, "one byte still waits");
  client.take(1);
  assertEquals([buffer.write("x".repeat(1_000)), client.bufferedAmount], [true, 1_000]);
});

Deno.test("A buffer has room again when half of what may wait is taken", () => {
  const { client, buffer } = make();
  buffer.write("x".repeat(100));
  client.take(49);
  assertEquals(buffer.hasRoom, false);
  client.take(1);
  assertEquals(buffer.hasRoom, true);
});

Deno.test("A client that takes nothing of what waits is stuck, and not one that takes some while more comes", () => {
  const { client, buffer } = make();
  assertEquals([buffer.tick(), buffer.tick()], [0, 0], "nothing waits");
  buffer.write("x".repeat(40));
  assertEquals([buffer.tick(), buffer.tick()], [1, 2]);
  client.take(1);
  assertEquals([buffer.tick(), buffer.tick()], [0, 1]);
  // No less waits than at the look before, and yet some was taken: before the frame, and after it.
  client.take(5);
  buffer.write("x".repeat(10));
  assertEquals([buffer.tick(), buffer.tick()], [0, 1]);
  buffer.write("x".repeat(10));
  client.take(5);
  assertEquals([buffer.tick(), buffer.tick()], [0, 1]);
  client.take(client.bufferedAmount);
  assertEquals([buffer.tick(), buffer.tick()], [0, 0]);
});
