/** The status page: puts the parts together, and listens to the reader. */
import { Daemon } from "./daemon.mjs";
import { byId, h, keyed, mark, put, setState, show, stateOf } from "./dom.mjs";
import { count, wait } from "./format.mjs";
import { Instrument } from "./instrument.mjs";
import { forRows } from "./interest.mjs";
import { Gaps, Journal } from "./journal.mjs";
import { Live } from "./live.mjs";
import { Model } from "./model.mjs";
import { Tiles, Venues } from "./overview.mjs";
import { read } from "./route.mjs";
import { System } from "./system.mjs";
import { Topics } from "./topics.mjs";

const BUILD = document.querySelector('meta[name="build"]').content;

const daemon = new Daemon();
const model = new Model();
const live = new Live(daemon);
const journal = new Journal();
const gaps = new Gaps();
const tiles = new Tiles(model);
const venues = new Venues(model, daemon);
const system = new System(model, { useKey: () => lock("", { free: true }) });
let route = { view: "overview", topic: null };
let outdated = false;

// --- what is wanted over the WebSocket --------------------------------------------------------------------------

function interest() {
  live.want(route.view === "topic" ? instrument.interest : forRows(topics.inSight));
}

const topics = new Topics(model, daemon, () => queueMicrotask(interest));
const instrument = new Instrument(model, daemon, live, { onInterest: () => queueMicrotask(interest) });

// --- what comes -------------------------------------------------------------------------------------------------

let tickFrame = null;
live.addEventListener("data", ({ detail: message }) => {
  const known = model.topics.get(message.topic)?.state;
  const topic = model.takeMessage(message, live.books);
  const { type, data } = message;
  // The state that a topic has comes again whenever it comes in sight.
  if (type === "status" && known !== undefined && known !== data.state) journal.note(data.state, `${topic.instrument} ${topic.channel} is ${data.state}`, [topic.venue, data.reason].filter(Boolean).join(" · "));
  if (type === "gap") gapPoll.hurry();
  if (route.view === "topic") instrument.take(message, topic);
  else tickFrame ??= requestAnimationFrame(() => {
    tickFrame = null;
    topics.tick();
  });
});

live.addEventListener("missed", ({ detail: { topic, from, to, reason } }) => {
  if (reason === "the epoch changed") return; // told once, below
  journal.note("warning", `This page missed ${to === null ? "some" : count(to - from + 1)} of ${topic}`, reason);
});

live.addEventListener("refused", ({ detail }) => {
  if (detail.topic !== null && detail.topic === instrument.topic) instrument.refused(detail);
});

let epoch = null;
live.addEventListener("connected", async ({ detail: welcome }) => {
  daemon.revive();
  if (route.view === "topic") {
    instrument.noExplain = false;
    instrument.loadPast();
  }
  if (epoch !== null && epoch !== welcome.epoch) {
    journal.note("warning", "The daemon began anew", `epoch ${welcome.epoch}`);
    journal.begin();
    model.begin();
    const { etag } = await daemon.get("", { method: "HEAD" });
    outdated = etag !== null && !etag.includes(BUILD);
    banners();
  }
  epoch = welcome.epoch;
});

live.addEventListener("state", () => {
  const { state, reason } = live;
  if (state === "waiting" && live.told !== reason) journal.note("warning", "This page lost the daemon", reason);
  live.told = state === "waiting" ? reason : null;
  if (state === "locked") lock(reason);
  else if (state === "open") unlock();
  banners();
});
daemon.addEventListener("reach", banners);

// --- what is asked ----------------------------------------------------------------------------------------------

daemon.poll(() => (model.closed ? null : "status"), {
  least: 1000,
  most: 10_000,
  take: (body) => takeStatus(body),
  refused: (status) => {
    if (status !== 401 && status !== 403) return;
    model.closed = true;
    readyPoll.hurry();
  },
});
const readyPoll = daemon.poll(() => (model.closed ? "ready" : null), { least: 2000, most: 10_000, take: (body) => takeStatus(body) });
const feedPoll = daemon.poll("feeds", {
  least: 2000,
  take: (body) => {
    model.takeFeeds(body, daemon.now());
    topics.update(topics.inSight.length === 0);
    topics.tick();
    if (route.view === "topic" && instrument.topic !== null) instrument.tick();
  },
  refused: (status, body) => {
    if (status === 401) lock(body?.error ?? "");
  },
});
const gapPoll = daemon.poll("api/v1/gaps?limit=100", {
  least: 5000,
  take: (body) => gaps.take(body),
  refused: (status) => gaps.refused(status),
});
daemon.poll(() => `api/v1/log?after=${journal.next}`, {
  least: 2000,
  take: (body) => journal.takeLog(body),
  refused: (status) => journal.noLog(status),
});

daemon.addEventListener("key", () => {
  model.closed = false;
});

function takeStatus(body) {
  model.takeStatus(body, daemon.now());
  draw();
}

function draw() {
  if (route.view === "overview") {
    tiles.draw();
    venues.draw();
    system.draw();
    journal.draw();
  }
  pills();
  banners();
}

// --- how it is --------------------------------------------------------------------------------------------------

const pill = byId("ready");
const connection = byId("connection");
pill.append(h("i", { class: "shape", "aria-hidden": "true" }), h("span", {}));
connection.append(stateOf("connecting"));

/** The daemon in one word: its shape, the word, and the icon of the tab. */
function verdict() {
  if (!daemon.reachable) return ["bad", "unreachable", "down"];
  if (model.ready === null) return ["wait", "connecting", "wait"];
  if (standby()) return ["wait", "standby", "wait"];
  if (!model.ready) return ["bad", "not ready", "down"];
  return model.reasons.length ? ["warn", "ready", "warn"] : ["ok", "ready", "ok"];
}

const standby = () => live.state === "standby" || model.status?.leader === false || model.status?.leader?.leads === false;

function pills() {
  const [shape, word, icon] = verdict();
  mark(pill, "class", `pill is-${shape}`);
  put(pill.lastChild, word.charAt(0).toUpperCase() + word.slice(1));
  const words = { connecting: ["connecting", "connecting"], open: ["live", "live"], waiting: ["stale", "reconnecting"], standby: ["idle", "standing by"], locked: ["down", "locked"], refused: ["down", "refused"] };
  setState(connection.firstChild, ...words[live.state]);
  put(byId("version"), model.status === null ? "" : model.status.version);
  const subject = route.view === "topic" ? `${instrument.topic} · ` : "";
  document.title = word === "ready" ? `${subject}pricefeedd` : `${word} · ${subject}pricefeedd`;
  const href = `static/${BUILD}/icon-${icon}.svg`;
  if (byId("icon").getAttribute("href") !== href) byId("icon").setAttribute("href", href);
}

const bannerBox = byId("banners");

/** Whether what is shown is of the past. */
const lost = () => live.state === "waiting" || live.state === "refused" || !daemon.reachable;

function banners() {
  const told = [];
  document.body.classList.toggle("lost", lost());
  if (lost()) {
    const left = live.state === "waiting" ? live.retryAt - Date.now() : 0;
    told.push({
      key: "lost",
      kind: "bad",
      title: live.state === "refused" ? "The daemon refuses this page." : "The daemon is out of reach.",
      text: [live.reason, left > 0 ? `trying again in ${wait(left)}` : live.state === "refused" ? "" : "trying again"].filter(Boolean).join("; "),
      action: ["Try now", () => live.hurry()],
    });
  } else if (standby()) {
    const { leader } = model.status ?? {};
    const who = leader?.leader ? ` ${leader.leader} leads.` : " Another instance leads, or will.";
    told.push({ key: "standby", kind: "info", title: "This daemon stands by.", text: `${who} It dials no venue and serves no data until it leads; this page comes back by itself.` });
  } else if (model.ready === false) {
    told.push({ key: "ready", kind: "bad", title: "Not ready.", text: model.reasons.join("; ") });
  } else if (model.reasons.length > 0) {
    told.push({ key: "reasons", kind: "warn", title: "Needs a look.", text: model.reasons.join("; ") });
  }
  if (outdated) told.push({ key: "outdated", kind: "info", title: "The daemon was updated.", text: "This page is of the version before.", action: ["Reload", () => location.reload()] });
  keyed(
    bannerBox,
    told,
    ({ key }) => key,
    ({ kind, title, action }) => {
      const banner = h("div", { class: `banner is-${kind}` }, h("i", { class: "shape", "aria-hidden": "true" }), h("strong", { role: "status" }, title), h("span", {}));
      if (action) banner.append(h("button", { type: "button", class: "button", onclick: action[1] }, action[0]));
      return banner;
    },
    (banner, { title, text }) => {
      put(banner.children[1], title);
      put(banner.children[2], text);
    },
  );
  pills();
}

// --- the key ----------------------------------------------------------------------------------------------------

const lockForm = byId("lock");

/** Ask for a key; `free`: what is seen without one can be gone back to. */
function lock(why, { free = false } = {}) {
  if (lockForm.hidden === false && !free) {
    put(byId("lock-why"), daemon.hasKey ? why : "");
    show(byId("lock-leave"), daemon.hasKey);
    return;
  }
  put(byId("lock-why"), daemon.hasKey && !free ? why : "");
  show(lockForm, true);
  show(byId("lock-leave"), free || daemon.hasKey);
  put(byId("lock-leave"), free ? "Back" : "Go on without");
  show(byId("overview"), false);
  show(byId("instrument"), false);
  byId("key").focus();
}

function unlock() {
  if (lockForm.hidden) return;
  show(lockForm, false);
  byId("key").value = "";
  go();
}

lockForm.addEventListener("submit", (event) => {
  event.preventDefault();
  put(byId("lock-why"), "");
  daemon.use(byId("key").value.trim());
});
byId("lock-leave").addEventListener("click", () => {
  if (live.state === "open") unlock();
  else daemon.use(null); // the daemon may ask for none, and refuse a wrong one
});

// --- where we are -----------------------------------------------------------------------------------------------

let scrolled = 0;

function go() {
  const before = route;
  route = read(location.hash);
  if (!lockForm.hidden) return;
  const open = route.view === "topic";
  if (open && before.view === "overview") scrolled = scrollY;
  show(byId("overview"), !open);
  show(byId("instrument"), open);
  if (open) {
    instrument.open(route.topic);
    scrollTo(0, 0);
  } else {
    if (before.view === "topic") instrument.close();
    topics.update(true);
    draw();
    if (before.view === "topic") {
      scrollTo(0, scrolled);
      topics.focus();
    }
  }
  interest();
  pills();
}

addEventListener("hashchange", go);
for (const link of document.querySelectorAll("[data-to]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    if (route.view === "topic") {
      history.pushState(null, "", "#/");
      go();
    }
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId(link.dataset.to).scrollIntoView({ behavior: still ? "auto" : "smooth" });
  });
}
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address tells where we are, and this is no place
  byId("main").focus();
});

// --- theme and keys ---------------------------------------------------------------------------------------------

const THEMES = { "": "light", light: "dark", dark: "" };

function drawTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  mark(byId("theme"), "aria-label", `Theme: ${now || "as the system"}`);
  mark(byId("theme"), "title", `Theme: ${now || "as the system"}`);
}

function nextTheme() {
  const root = document.documentElement;
  const next = THEMES[root.dataset.theme ?? ""];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  try {
    if (next) localStorage.setItem("pricefeedd.theme", next);
    else localStorage.removeItem("pricefeedd.theme");
  } catch {
    // A browser that keeps nothing.
  }
  drawTheme();
  instrument.restyle();
}

byId("theme").addEventListener("click", nextTheme);
byId("keys").addEventListener("click", () => byId("help").showModal());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => instrument.restyle());
drawTheme();

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || byId("help").open || !lockForm.hidden) return;
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    const { search } = topics;
    if (event.target === search && search.value) {
      search.value = "";
      search.dispatchEvent(new Event("input"));
    } else if (typing) topics.focus();
    else if (route.view === "topic") location.hash = "#/";
    return;
  }
  if (typing) return;
  switch (event.key) {
    case "/":
      event.preventDefault();
      if (route.view === "topic") {
        history.pushState(null, "", "#/");
        go();
      }
      topics.search.focus();
      topics.search.select();
      break;
    case "?":
      event.preventDefault();
      byId("help").showModal();
      break;
    case "t":
      nextTheme();
      break;
    case "j":
    case "k":
      event.preventDefault();
      if (route.view === "topic") {
        const next = topics.neighbour(route.topic, event.key);
        if (next !== null) location.replace(`#/topic/${encodeURIComponent(next.name)}`);
      } else {
        topics.focus();
        topics.walk(event);
      }
      break;
  }
});

// --- begin ------------------------------------------------------------------------------------------------------

setInterval(() => {
  if (document.hidden) return;
  if (route.view === "topic") instrument.tick();
  else {
    topics.update();
    topics.tick();
    venues.draw();
    journal.draw();
  }
  if (live.state === "waiting" || !daemon.reachable) banners();
}, 1000);
setInterval(() => {
  if (!document.hidden && route.view === "topic") instrument.explain();
}, 10_000);

live.connect();
go();
