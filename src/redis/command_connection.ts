/**
 * The one connection of this process on which commands go to Redis: it is dialled, greeted, watched, and dialled again.
 *
 * It promises that no command waits for ever. The client library alone does not: a command that has been written waits
 * as long as Redis hangs, and a hung Redis looks connected. So every command has a deadline, and a heartbeat finds
 * out when Redis has stopped answering.
 */
import { TickTime } from "../async/tick_time.ts";
import { TICK_MS, ticker } from "../async/ticker.ts";
import { BrokerUnavailableError, messageOf } from "../protocol/errors.ts";
import type { Log } from "../log/log.ts";
import { WarnOnce } from "../log/warn_once.ts";
import type { RedisAddress } from "./address.ts";
import { Availability } from "./availability.ts";
import { asUnavailable, type Client, isLoaded, isRefusal, load, newClient } from "./client_library.ts";
import { GreetedServer } from "./greeted_server.ts";
import { Greeting, type Watch } from "./greeting.ts";
import { Outbox } from "./outbox.ts";
import { Redial } from "./redial.ts";
import { BEAT_MS, ServerHeartbeat } from "./server_heartbeat.ts";
import type { ServerInfo } from "./server_info.ts";
import type { Topology } from "./topology.ts";
import {
  isElsewhere,
  isReadOnly,
  isReply,
  logMessage,
  MAYBE_CERTIFICATE,
  MAYBE_TLS,
  publicMessage,
  type Severity,
  severityOf,
} from "./error_text.ts";

export interface RedisOptions {
  /** How long a command may take, in milliseconds. @default DEFAULT_TIMEOUT_MS */
  timeoutMs?: number;
  log?: Log;
}

export const DEFAULT_TIMEOUT_MS = 3_000;
const NO_ANSWER = "Redis does not answer";

export abstract class CommandConnection {
  protected readonly topology: Topology;
  readonly availability: Availability;
  readonly #outbox: Outbox;
  readonly #stopBeating: () => void;
  /** Runs while there is something to wait for. */
  #stopChecking: (() => void) | undefined;
  protected readonly greeting: Greeting;
  #onCluster: (() => void) | undefined;
  /** None before the first dial. */
  #client: Client | undefined;
  /** The connection that has ended last. */
  #ended: Client | undefined;
  readonly #heartbeat = new ServerHeartbeat<Client>();
  #isSilent = false;
  readonly #redial = new Redial(() => {
    this.#client?.destroy();
    this.#dial();
  });
  /** What to add where the server hangs up and has never said a word. */
  #hint = "";
  readonly #server = new GreetedServer();
  readonly #closing = new AbortController();
  #closed = false;

  protected constructor(topology: Topology, options: RedisOptions) {
    this.topology = topology;
    topology.onChange((reason) => this.#moved(reason));
    const warnings = new WarnOnce(options.log);
    this.availability = new Availability(warnings, options.log);
    this.greeting = new Greeting(warnings, topology.words);
    this.#outbox = new Outbox({
      timeoutMs: options.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      onAnswer: () => {
        if (this.availability.reason !== undefined) this.#onAnswer();
      },
      failure: (error) => this.failure(error),
      onPosted: () => this.#checkFromNowOn(),
    });
    this.#dial();
    this.#stopBeating = ticker.every(BEAT_MS, () => this.#beatIfReady());
  }

  /**
   * What is wrong when Redis may hang: it has not answered for more than a second. A sentence without a full stop, and
   * undefined otherwise. What is sent to it waits all the same, for it may go on.
   */
  silence(): string | undefined {
    return this.#isSilent ? NO_ANSWER : undefined;
  }

  /** Who was greeted last; undefined before the first greeting. Its `life` changes with its data. */
  get server(): ServerInfo | undefined {
    return this.#server.info;
  }

  /** Lets somebody look at each server before anything else is asked of it, and once a second from then on. */
  watchWith(watch: Watch): void {
    this.greeting.watches.push(watch);
  }

  /** Calls back when another server is greeted than before, or one with other data; no command has been sent to it. */
  onOtherServer(listener: () => void): void {
    this.#server.onOther(listener);
  }

  /** Calls back when it is a node of a cluster that was found: commands for it go other ways. */
  onCluster(listener: () => void): void {
    this.#onCluster = listener;
  }

  /** Leaves the connection, and dials again. */
  dialAnew(reason: string): void {
    if (!this.#closed && this.#server.isHere) this.#leave(reason);
  }

  /** Looks at the server now: somebody has found other data than before. Resolves when it was looked at, or can't be. */
  async lookNow(): Promise<void> {
    const client = this.#client;
    // One that was not greeted is looked at before anything is sent to it.
    if (client === undefined || !this.#server.isHere) return;
    await this.#outbox.sendNow(() => this.#ask(client)).catch(() => {}); // the next command meets the same error
  }

  /** Ends the connection. Commands still waiting are rejected at once. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#closing.abort();
    this.#stopBeating();
    this.#stopChecking?.();
    this.#redial.stop();
    const reason = "The connection to Redis is closed";
    this.#outbox.fail(reason);
    this.availability.close(reason);
    this.#client?.destroy();
  }

  /** Aborted when it is closed. */
  protected get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Issues a command, unless it is known that it can't be sent.
   * @param bytes Roughly its size, where it may be large.
   * @throws {BrokerUnavailableError} also when Redis refuses it, or has not answered in time.
   */
  protected command<T>(issue: (client: Client) => Promise<T>, bytes = 0): Promise<T> {
    const { reason } = this.availability;
    if (reason !== undefined) return Promise.reject(new BrokerUnavailableError(reason));
    return this.#outbox.send(() => issue(this.#client!), bytes);
  }

  #dial(): void {
    if (!isLoaded()) return void this.#load();
    this.availability.dialled();
    let address: RedisAddress | undefined;
    try {
      address = this.topology.locate();
    } catch (error) {
      this.#fail(messageOf(error), { severity: 2 });
      return this.#redial.later();
    }
    if (address === undefined) return this.#redial.later();
    this.#hint = { tcp: MAYBE_TLS, tls: MAYBE_CERTIFICATE, unix: "" }[address.transport];
    const client = this.#client = newClient(address);
    // Ready is what the library calls a connection on which Redis may not have said a word: so it is asked.
    client.on("ready", () => {
      this.#server.leave();
      this.#beat();
    });
    // Without a listener an error would end the client in silence.
    client.on("error", (error: unknown) => {
      if (client === this.#client) this.#onError(error);
    });
    client.on("terminated", () => {
      if (client === this.#client) this.#dialAgain();
    });
    client.connect().catch(() => {}); // its events have said it
  }

  async #load(): Promise<void> {
    try {
      await load();
      if (!this.#closed) this.#dial();
    } catch (error) {
      this.#fail(`The client library of Redis can't be loaded: ${messageOf(error)}`, { severity: 2 });
      if (!this.#closed) this.#redial.later();
    }
  }

  /**
   * Dials again, at once when Redis had answered on the connection that ended. The library would do so also when it
   * had not: a Redis that accepts and hangs up, as one that does not like our certificate, would be dialled as fast as
   * the network allows.
   */
  #dialAgain(): void {
    if (this.#closed || this.#ended === this.#client) return;
    this.#ended = this.#client;
    this.topology.doubt();
    // The next server is unknown until it has said who it is.
    this.#server.leave();
    this.#redial.later();
  }

  /** Redis is somewhere else now: dials there at once, also where the old place was being dialled. */
  #moved(reason: string): void {
    if (this.#closed) return;
    this.#fail(reason, { severity: 2 });
    this.#client?.destroy();
    this.#ended = this.#client;
    this.#server.leave();
    this.#redial.reset();
    this.#redial.later();
  }

  /** Ends a connection whose server is of no use, and dials again. */
  #leave(reason: string): void {
    // The end of the connection does not hide why it was ended.
    this.#fail(reason, { severity: 2 });
    this.#client?.destroy();
    this.#dialAgain();
  }

  /** What a command is rejected with when this is what came of it. */
  protected failure(cause: unknown): { error: Error; isAnswer: boolean } {
    const error = asUnavailable(cause);
    if (isElsewhere(cause)) this.topology.doubt();
    else this.availability.warn("redis refused a command", error.message, error.cause);
    if (this.#server.isHere && isReadOnly(cause)) this.#leave(error.message);
    return { error, isAnswer: isReply(cause) };
  }

  #checkFromNowOn(): void {
    if (this.#stopChecking || this.#closed) return;
    const time = new TickTime(TICK_MS);
    this.#stopChecking = ticker.every(TICK_MS, () => this.#check(time.at(performance.now())));
  }

  #check(lateMs: number): void {
    // Where more is known already, that is said.
    if (this.#outbox.check(lateMs) && this.availability.isUnexplained) this.#fail(NO_ANSWER);
    this.#isSilent = this.#heartbeat.isSilent(lateMs, this.#outbox.answeredAtMs);
    if (this.#heartbeat.isSoon) this.#beatIfReady();
    // A beat that is late is no more in the outbox, and its answer is still awaited.
    if (!this.#outbox.isEmpty || this.#heartbeat.isUnderWay) return;
    this.#stopChecking?.();
    this.#stopChecking = undefined;
  }

  #beatIfReady(): void {
    if (this.#client?.isReady) this.#beat();
  }

  /** Asks the server whether it is still who it was; at first, who it is. */
  #beat(): void {
    const client = this.#client;
    const ended = client && this.#heartbeat.begin(client);
    if (!ended) return;
    // A beat without an answer is seen by its deadline or by the client's error event.
    this.#outbox.sendNow<unknown>(() => this.#ask(client).finally(ended)).catch(
      ({ cause }: BrokerUnavailableError) => {
        if (isReply(cause) && client === this.#client) this.#onError(cause);
      },
    );
  }

  /** Greets the server, or looks at it again: what is found decides whether commands can be sent. */
  async #ask(client: Client): Promise<void> {
    const known = this.#server.isHere ? this.#server.info : undefined;
    if (!known) {
      await this.topology.confirm();
      if (client !== this.#client || this.#ended === client) return;
    }
    const found = await (known ? this.greeting.look(client, known) : this.greeting.greet(client));
    if (client !== this.#client || this.#ended === client || (known && !this.#server.isHere)) return;
    if (found.state === "unfit") {
      const { reason, remedy, isOfCluster } = found;
      if (isOfCluster && this.#onCluster) {
        this.availability.endFirst({ outcome: "unreachable", reason });
        return this.#onCluster();
      }
      this.availability.endFirst(
        remedy === undefined ? { outcome: "unreachable", reason } : { outcome: "refused", reason, remedy },
      );
      return this.#leave(reason);
    }
    if (found.state === "unfit yet") {
      // It is greeted anew with the next beat.
      this.#server.leave();
      this.#heartbeat.isSoon = true;
      this.#checkFromNowOn();
      return this.#fail(found.reason);
    }
    if (known) return;
    this.#server.greeted(found.server);
  }

  #onError(error: unknown): void {
    if (this.#closed) return;
    const severity = severityOf(error);
    // A TLS port that is not spoken to in TLS just hangs up, and so may one that misses our certificate. One that has
    // served us before is another matter.
    const isMute = severity === 0 && this.#server.info === undefined;
    const reason = publicMessage(error) + (isMute ? this.#hint : "");
    const detail = logMessage(messageOf(error));
    this.#fail(reason, { detail, severity });
    const isRefused = isRefusal(error);
    if (isRefused) this.topology.loginRefused();
    const remedy = "correct the user and password in it";
    this.availability.endFirst(
      isRefused ? { outcome: "refused", reason, detail, remedy } : { outcome: "unreachable", reason },
    );
  }

  #fail(reason: string, options?: { detail?: string; severity?: Severity }): void {
    this.availability.fail(reason, options);
    this.#outbox.refuse(reason);
  }

  #onAnswer(): void {
    if (this.#closed || !this.#server.isHere) return;
    this.#redial.reset();
    this.availability.restore();
  }
}
