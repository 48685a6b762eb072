/**
 * How many things are done in one turn of the event loop: what promises bring in the same turn belongs to it, what an
 * immediate or a timer brings is another turn.
 *
 *     using turns = new TurnCounter();
 *     turns.count();
 *     assertEquals(turns.most, 1);
 */
import { setImmediate } from "node:timers";

export class TurnCounter implements Disposable {
  /** The most in one turn until now. */
  most = 0;
  /** Over all turns. */
  all = 0;
  #inTurn = 0;
  #isOver = false;

  count(): void {
    if (this.#inTurn === 0) this.#endLater();
    this.all++;
    this.most = Math.max(this.most, ++this.#inTurn);
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
  }

  /** Set before the immediate of whoever counts, so it runs first in the next turn. */
  #endLater(): void {
    setImmediate(() => {
      if (!this.#isOver) this.#inTurn = 0;
    });
  }
}
