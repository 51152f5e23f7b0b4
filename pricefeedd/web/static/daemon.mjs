/** The daemon over HTTP: its paths asked again and again, with the key that the reader gave. */
import { pause } from "./pace.mjs";

const KEPT = "pricefeedd.key";
const ANSWER_MS = 15_000;

/** Where the page is served is where the daemon is, whatever a proxy puts before it. */
const BASE = new URL(".", location.href);

export class Daemon extends EventTarget {
  #key = null;
  #polls = [];
  #ahead = [];
  reachable = true;

  constructor() {
    super();
    const given = new URL(location.href);
    if (given.searchParams.has("api_key")) {
      // Out of the address bar, its history, and what is sent on by those who share the page.
      this.#keep(given.searchParams.get("api_key"));
      given.searchParams.delete("api_key");
      history.replaceState(null, "", given);
    }
    try {
      this.#key ??= sessionStorage.getItem(KEPT);
    } catch {
      // A browser that keeps nothing: the key is asked for each time.
    }
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.hurry();
    });
  }

  get hasKey() {
    return Boolean(this.#key);
  }

  #keep(key) {
    this.#key = key || null;
    try {
      if (this.#key) sessionStorage.setItem(KEPT, this.#key);
      else sessionStorage.removeItem(KEPT);
    } catch {
      // As above.
    }
  }

  /** Use another key from now on; null for none. */
  use(key) {
    this.#keep(key);
    this.dispatchEvent(new Event("key"));
    this.revive();
  }

  /** The address of the WebSocket. A page can set no header there, so the key is in it. */
  get socketUrl() {
    const url = new URL("ws", BASE);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    if (this.#key) url.searchParams.set("api_key", this.#key);
    return url.href;
  }

  /**
   * Ask once. Return `{status, body, tookMs}`; `status` is 0 if there was no answer, `body` null if it was not JSON.
   */
  async get(path, { method = "GET" } = {}) {
    const began = performance.now();
    const beganMs = Date.now();
    try {
      const answer = await fetch(new URL(path, BASE), {
        method,
        cache: "no-store",
        headers: this.#key ? { "X-API-Key": this.#key } : {},
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const body = method === "HEAD" ? null : await answer.json().catch(() => null);
      const tookMs = performance.now() - began;
      if (body?.timestamp) this.#compare(Date.parse(body.timestamp), beganMs + tookMs / 2, tookMs);
      this.#reached(answer.status !== 502 && answer.status !== 504);
      return { status: answer.status, body, tookMs, etag: answer.headers.get("ETag") };
    } catch {
      this.#reached(false);
      return { status: 0, body: null, tookMs: performance.now() - began, etag: null };
    }
  }

  #reached(now) {
    if (now === this.reachable) return;
    this.reachable = now;
    this.dispatchEvent(new Event("reach"));
  }

  /** Note how far the daemon's clock is ahead of ours: what was answered fastest tells it best. */
  #compare(theirsMs, oursMs, tookMs) {
    if (!Number.isFinite(theirsMs)) return;
    this.#ahead.push({ ms: theirsMs - oursMs, tookMs });
    if (this.#ahead.length > 20) this.#ahead.shift();
  }

  /** The time now by the daemon's clock, in ms: ages are told by that one. */
  now() {
    let best = null;
    for (const seen of this.#ahead) if (best === null || seen.tookMs < best.tookMs) best = seen;
    return Date.now() + (best?.ms ?? 0);
  }

  /**
   * Ask a path again and again while the page is seen.
   * @param path what to ask, or a function that returns it; null for nothing now
   * @param take is given the body
   * @param refused is given any other status; 401 and 404 are not asked again before `revive`
   */
  poll(path, { least, most = 30_000, take, refused = () => {} }) {
    const poll = new Poll(this, path, { least, most, take, refused });
    this.#polls.push(poll);
    return poll;
  }

  /** Ask all now. */
  hurry() {
    for (const poll of this.#polls) poll.hurry();
  }

  /** Ask again what was refused or was not there: the key or the daemon is another one. */
  revive() {
    for (const poll of this.#polls) poll.revive();
  }
}

class Poll {
  #timer = null;
  #asking = false;
  #ended = false;
  #again = false;

  constructor(daemon, path, options) {
    Object.assign(this, options, { daemon, path });
    this.#ask();
  }

  hurry() {
    if (this.#ended) return;
    if (this.#asking) this.#again = true;
    else this.#ask();
  }

  revive() {
    this.#ended = false;
    this.hurry();
  }

  async #ask() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const path = typeof this.path === "function" ? this.path() : this.path;
    if (document.hidden) return; // it is hurried when it is seen again
    if (path === null) {
      this.#wait(this.least);
      return;
    }
    this.#asking = true;
    this.#again = false;
    const { status, body, tookMs } = await this.daemon.get(path);
    this.#asking = false;
    // Of those with 503 `/ready` alone tells what it would tell otherwise.
    if (body !== null && (status === 200 || (status === 503 && body.status !== undefined))) {
      this.take(body);
    } else {
      this.#ended = !this.#again && (status === 401 || status === 403 || status === 404);
      this.refused(status, body);
    }
    if (this.#again) this.#ask();
    else if (!this.#ended) this.#wait(pause(tookMs, this));
  }

  #wait(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }
}
