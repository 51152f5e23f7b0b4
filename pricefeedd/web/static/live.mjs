/** The daemon over its WebSocket: `feed.mjs`, which is the example that all may copy, told what is in sight. */
import { PricefeedClient } from "./feed.mjs";
import { changes } from "./interest.mjs";

/** The daemon's word for: I do not serve now, come back. */
const STATE_LOST = 4010;
const UNAUTHORISED = 4501;

/** While a standby waits it is asked so often whether it leads. */
const STANDBY_MS = 2000;
/** Rows that fly by need nothing. */
const SETTLE_MS = 120;

/**
 * Events: `state` when `state` changed, `data` with each message, `missed`, `refused` with a topic that cannot be had,
 * `connected` with the welcome.
 *
 * `state` is `connecting`, `open`, `waiting` (until `retryAt`, for `reason`), `standby`, `locked` (a key is needed) or
 * `refused`.
 */
export class Live extends EventTarget {
  #daemon;
  #client = null;
  #had = new Map();
  #wanted = new Map();
  #settle = null;
  #standby = null;
  state = "connecting";
  reason = "";
  retryAt = null;

  constructor(daemon) {
    super();
    this.#daemon = daemon;
    daemon.addEventListener("key", () => this.connect());
  }

  get books() {
    return this.#client.books;
  }

  get epoch() {
    return this.#client.epoch;
  }

  /** Connect, now, and anew if we are. */
  connect() {
    clearTimeout(this.#standby);
    this.#client?.close();
    const client = new PricefeedClient(this.#daemon.socketUrl);
    this.#client = client;
    this.#had = new Map();
    const on = (type, act) => client.addEventListener(type, ({ detail }) => client === this.#client && act(detail));
    on("data", (message) => this.#tell("data", message));
    on("missed", (detail) => this.#tell("missed", detail));
    on("refused", (detail) => this.#tell("refused", detail));
    on("connected", (welcome) => {
      this.#now("open");
      this.#tell("connected", welcome);
    });
    on("disconnected", ({ code, reason, retryMs }) => {
      if (code === STATE_LOST) this.#standBy(reason);
      else this.#now("waiting", reason, Date.now() + retryMs);
    });
    on("ended", ({ code, reason }) => this.#now(code === UNAUTHORISED ? "locked" : "refused", reason));
    this.#now("connecting");
    this.#sync();
    client.connect();
  }

  /** Do not wait any longer for the next try. */
  hurry() {
    if (this.state === "waiting") {
      this.#client.close();
      this.#client.connect();
      this.#now("connecting");
    } else if (this.state === "refused") this.connect();
  }

  /** Have these topics, each with its options, and no others. */
  want(topics) {
    this.#wanted = topics;
    this.#settle ??= setTimeout(() => this.#sync(), SETTLE_MS);
  }

  #sync() {
    clearTimeout(this.#settle);
    this.#settle = null;
    const { gone, come } = changes(this.#had, this.#wanted);
    this.#had = new Map(this.#wanted);
    if (gone.length > 0) this.#client.unsubscribe(gone);
    const together = new Map();
    for (const [topic, options] of come) {
      const key = JSON.stringify(options);
      if (!together.has(key)) together.set(key, { options, topics: [] });
      together.get(key).topics.push(topic);
    }
    for (const { options, topics } of together.values()) this.#client.subscribe(topics, options);
  }

  /** Leave a standby alone until it says that it leads; to knock again and again would help nobody. */
  #standBy(reason) {
    this.#client.close();
    this.#now("standby", reason);
    const ask = async () => {
      const { status, body } = await this.#daemon.get("ready");
      if (this.state !== "standby") return;
      const waits = status === 0 || body === null || (body.reasons ?? []).some((text) => /standby/i.test(text));
      if (waits) {
        this.#standby = setTimeout(ask, STANDBY_MS);
      } else {
        this.#now("connecting");
        this.#client.connect();
      }
    };
    this.#standby = setTimeout(ask, STANDBY_MS);
  }

  #now(state, reason = "", retryAt = null) {
    Object.assign(this, { state, reason, retryAt });
    this.dispatchEvent(new Event("state"));
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
