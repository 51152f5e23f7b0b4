/** Candles and volume, drawn by uPlot. A candle that rose is hollow and one that fell is filled, so no colour is needed. */
import uPlot from "./uplot.js";
import { byId, h } from "./dom.mjs";
import { clock, decimal, digitsOf, moment } from "./format.mjs";

/** Pixels from one candle to the next, at the beginning. */
const STEP = 8;

/** Return a colour of the style sheet as it is now, in a form that a canvas takes. */
function ink(name) {
  const probe = byId("ink");
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

export class CandleChart {
  #plot = null;
  #candles = null;
  #zoomed = false;
  #columns = null;
  #onHover;

  /** @param onHover is told the candle under the pointer, or the last one */
  constructor(onHover) {
    this.#onHover = onHover;
    this.element = h("div", { class: "chart", role: "img" });
    new ResizeObserver(() => {
      if (this.#plot !== null) this.#plot.setSize(this.#size());
      else this.#build();
    }).observe(this.element);
  }

  /** Draw these candles from now on; null for none. */
  show(candles) {
    this.#candles = candles;
    this.#zoomed = false;
    this.#columns = null;
    this.#plot?.destroy();
    this.#plot = null;
    this.update();
  }

  /** Take the colours of another theme. */
  restyle() {
    if (this.#candles !== null) this.show(this.#candles);
  }

  update() {
    if (this.#candles === null) return;
    this.#columns = this.#candles.columns();
    if (this.#plot === null) this.#build();
    else {
      const { min, max } = this.#plot.scales.x;
      this.#plot.setData(this.#columns, false);
      if (this.#zoomed) this.#plot.setScale("x", { min, max });
      else this.#plot.setScale("x", this.#span());
    }
    this.#hover(null);
  }

  #size() {
    const style = getComputedStyle(this.element);
    return {
      width: Math.max(200, this.element.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight)),
      height: Math.max(150, this.element.clientHeight - parseFloat(style.paddingBottom)),
    };
  }

  /** The interval in seconds: the commonest step. */
  #interval() {
    const [starts] = this.#columns;
    let least = Infinity;
    for (let i = 1; i < starts.length; i += 1) least = Math.min(least, starts[i] - starts[i - 1]);
    return Number.isFinite(least) ? least : 60;
  }

  /** What is seen at first: as many of the newest as there is room for. */
  #span() {
    const [starts] = this.#columns;
    const interval = this.#interval();
    const room = Math.max(20, Math.floor(this.#size().width / STEP));
    const last = starts.at(-1) ?? 0;
    return { min: Math.max(starts[0] ?? 0, last - room * interval) - interval, max: last + 2 * interval };
  }

  #hover(index) {
    const at = index ?? this.#candles.size - 1;
    const candle = this.#candles.at(at);
    if (candle !== null) this.#onHover(candle);
  }

  #build() {
    if (this.#columns === null || this.#columns[0].length === 0 || this.element.clientWidth === 0) return;
    const colours = Object.fromEntries(["good", "bad", "quiet", "line", "panel"].map((name) => [name, ink(name)]));
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colours.quiet, font, ticks: { show: false }, grid: { stroke: colours.line, width: 1 } };
    const none = { show: true, paths: () => null, points: { show: false } };
    const options = {
      ...this.#size(),
      legend: { show: false },
      padding: [8, 4, 0, 20],
      cursor: { points: { show: false }, drag: { x: true, y: false, setScale: true }, y: true },
      scales: {
        x: { time: true },
        y: { range: (_, low, high) => this.#range(low, high) },
        volume: { range: (_, low, high) => [0, (high || 1) * 5] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 30, space: 90, values: (_, times) => this.#times(times) },
        { ...axis, side: 1, size: (_, values) => 18 + 7.2 * Math.max(4, ...(values ?? []).map((text) => text.length)), values: (_, prices) => this.#prices(prices) },
        { scale: "volume", show: false },
      ],
      series: [
        {},
        { ...none, scale: "y" },
        { ...none, scale: "y" },
        { ...none, scale: "y" },
        { ...none, scale: "y" },
        { ...none, scale: "volume" },
      ],
      hooks: {
        draw: [(plot) => this.#paint(plot, colours)],
        setCursor: [(plot) => this.#hover(plot.cursor.idx ?? null)],
        setSelect: [
          (plot) => {
            this.#zoomed = plot.select.width > 0 || this.#zoomed;
          },
        ],
      },
    };
    this.#plot = new uPlot(options, this.#columns, this.element);
    this.#plot.setScale("x", this.#span());
    this.#plot.over.addEventListener("dblclick", () => {
      this.#zoomed = false;
      this.#plot.setScale("x", this.#span());
    });
  }

  #range(low, high) {
    if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
    const room = (high - low || Math.abs(high) * 0.001 || 1) * 0.08;
    return [low - room * 3, high + room]; // volume has the bottom
  }

  #times(times) {
    const [first, last] = [times[0], times.at(-1)];
    const days = last - first > 2 * 86_400;
    return times.map((at) => (days ? moment(at * 1000).slice(5, 10) : clock(at * 1000).slice(0, 5)));
  }

  /** As many digits as tell two lines of the axis apart. */
  #prices(prices) {
    const step = prices.length > 1 ? prices[1] - prices[0] : 1;
    return prices.map((price) => decimal(price.toFixed(digitsOf(step))));
  }

  #paint(plot, colours) {
    const { ctx, bbox } = plot;
    const [starts, opens, highs, lows, closes, volumes] = plot.data;
    const ratio = devicePixelRatio;
    const interval = this.#interval();
    const step = Math.abs(plot.valToPos(starts[0] + interval, "x", true) - plot.valToPos(starts[0], "x", true));
    const width = Math.max(ratio, Math.min(14 * ratio, Math.floor(step * 0.66)));
    const { min, max } = plot.scales.x;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = Math.max(1, Math.round(ratio * 1.2));
    const base = plot.valToPos(0, "volume", true);
    for (let i = 0; i < starts.length; i += 1) {
      if (starts[i] < min - interval || starts[i] > max + interval || closes[i] === null) continue;
      const rose = closes[i] >= opens[i];
      const colour = rose ? colours.good : colours.bad;
      const x = Math.round(plot.valToPos(starts[i], "x", true));
      const left = x - Math.floor(width / 2);
      const [open, high, low, close] = [opens[i], highs[i], lows[i], closes[i]].map((price) => Math.round(plot.valToPos(price, "y", true)));
      ctx.strokeStyle = colour;
      ctx.fillStyle = colour;
      if (volumes[i] > 0) {
        const top = plot.valToPos(volumes[i], "volume", true);
        ctx.globalAlpha = 0.28;
        ctx.fillRect(left, top, width, base - top);
        ctx.globalAlpha = 1;
      }
      ctx.beginPath();
      ctx.moveTo(x, high);
      ctx.lineTo(x, low);
      ctx.stroke();
      const [top, bottom] = [Math.min(open, close), Math.max(open, close)];
      const height = Math.max(ratio, bottom - top);
      if (rose && width > 3 * ratio && height > 2 * ratio) {
        ctx.fillStyle = colours.panel;
        ctx.fillRect(left, top, width, height);
        ctx.strokeRect(left + ctx.lineWidth / 2, top + ctx.lineWidth / 2, width - ctx.lineWidth, height - ctx.lineWidth);
      } else ctx.fillRect(left, top, width, height);
    }
    ctx.restore();
  }
}
