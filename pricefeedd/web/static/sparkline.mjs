/** A small curve. It is decoration beside a number that says the same, so it is hidden from screen readers. */
import { mark, s } from "./dom.mjs";
import { SAMPLES } from "./model.mjs";
import { spark } from "./series.mjs";

export class Sparkline {
  constructor({ width = 120, height = 28, floor = 0, kind = "" } = {}) {
    Object.assign(this, { width, height, floor });
    this.area = s("path", { class: "area" });
    this.line = s("path", { class: "line" });
    this.element = s(
      "svg",
      { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.line,
    );
  }

  draw(values) {
    const { line, area } = spark(values, { length: SAMPLES, ...this });
    mark(this.line, "d", line);
    mark(this.area, "d", area);
  }
}
