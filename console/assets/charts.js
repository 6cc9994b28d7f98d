// The four charts, drawn by uPlot.
import uPlot from "./vendor/uplot/uPlot.esm.js";
import { QPS, SERVED, ERRORS, CPU, MEMORY, QUERIES, sum, median, slowest } from "./series.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const round = (v) => (v == null ? "–" : v >= 100 ? Math.round(v).toLocaleString("en") : v >= 10 || v === 0 ? v.toFixed(0) : v.toFixed(1));
const percent = (v) => (v == null ? "–" : round(v) + " %");
const thousands = (v) => (v >= 1000 ? v / 1000 + "k" : String(v));
const duration = (v) => (v == null ? "–" : v >= 1000 ? (v / 1000).toFixed(1) + " s" : round(v) + " ms");

// shortest is the least that an axis shows, in seconds: a page that was opened
// just now is not left empty.
const shortest = 60;

// A line has a label, a tone (CSS variable), and its value in one second.
function lineSets(servers, series) {
  const each = (column, extra) => servers.map((s, i) => ({
    label: s, tone: "s" + (i + 1), css: "tone-" + i, value: (t) => series.at(s, t)?.[column] ?? null, ...extra,
  }));
  const all = (f) => (t) => {
    const rows = series.rows(t);
    return rows.length ? f(rows) : null;
  };
  return {
    qps: { format: round, least: 5, lines: [
      { label: "visitors", tone: "sum", css: "tone-sum", width: 1.75, fill: 0.07, value: all((rows) => sum(rows, QPS)) },
      ...each(SERVED),
      { label: "errors", tone: "bad", css: "tone-bad", width: 1.75, fill: 0.15, none: "0", value: (t) => errors(series, t) },
    ] },
    latency: { format: duration, axis: (v) => (v >= 1000 ? v / 1000 + " s" : v + " ms"), least: 5, lines: [
      { label: "99th percentile", tone: "slow", css: "tone-slow", fill: 0.12, value: all(slowest) },
      { label: "median", tone: "sum", css: "tone-sum", width: 1.75, fill: 0.1, value: all(median) },
    ] },
    queries: { format: round, least: 5, lines: each(QUERIES, { fill: 0.05 }) },
    host: { format: percent, axis: (v) => v + " %", least: 10, most: 100, lines: [...each(CPU), ...each(MEMORY, { dash: [4, 4], quiet: true })] },
  };
}

// errors are null where there are none, also just before and after, so that no
// red line runs along the axis of a healthy site.
function errors(series, t) {
  const some = (t) => sum(series.rows(t), ERRORS) > 0;
  return some(t - 1) || some(t) || some(t + 1) ? sum(series.rows(t), ERRORS) : null;
}

export class Charts {
  constructor(series) {
    this.series = series;
    this.charts = [];
    this.key = "";
    this.range = 300;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.build(true));
  }

  // build makes the charts anew when the servers are others than before.
  build(always) {
    const key = this.series.servers.join();
    if (key === this.key && !always) {
      return;
    }
    this.key = key;
    this.charts.forEach((c) => c.destroy());
    const sets = lineSets(this.series.servers, this.series);
    this.charts = Object.entries(sets).map(([name, set]) => new Chart(document.getElementById("chart-" + name), set));
    this.draw(this.range);
  }

  // draw shows the last seconds, as many as range.
  draw(range) {
    this.range = range;
    const end = this.series.newest;
    if (!end) {
      return;
    }
    const begin = Math.max(end - range + 1, Math.min(this.series.oldest, end - shortest + 1));
    const times = Array.from({ length: end - begin + 1 }, (_, i) => begin + i);
    this.charts.forEach((c) => c.draw(times));
  }
}

class Chart {
  constructor(figure, set) {
    this.set = set;
    this.figure = figure;
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.plot = document.createElement("div");
    this.plot.className = "plot";
    this.plot.setAttribute("aria-hidden", "true");
    figure.append(this.legend, this.plot);
    this.values = set.lines.map((line) => this.entry(line));
    this.u = new uPlot(this.options(), [[], ...set.lines.map(() => [])], this.plot);
    this.observer = new ResizeObserver(() => this.u.setSize(this.size()));
    this.observer.observe(this.plot);
  }

  entry(line) {
    const value = document.createElement("b");
    if (line.quiet) {
      return value;
    }
    const item = document.createElement("li");
    const mark = document.createElement("i");
    item.className = line.css;
    item.append(mark, line.label, value);
    this.legend.append(item);
    return value;
  }

  size() {
    return { width: Math.max(this.plot.clientWidth, 200), height: this.plot.clientHeight };
  }

  options() {
    const { least = 0, most = Infinity, axis: short = thousands } = this.set;
    const font = "11px system-ui, sans-serif";
    const axis = { stroke: colour("faint"), font, ticks: { show: false }, grid: { stroke: colour("line"), width: 1 } };
    return {
      ...this.size(),
      legend: { show: false },
      padding: [8, 12, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { y: { range: (_, __, max) => [0, Math.min(most, Math.max(least, nice(max)))] } },
      axes: [
        { ...axis, grid: { show: false }, size: 26, space: 64, values: (u, ticks, _, __, step) => ticks.map((t) => label(u, t, step)) },
        { ...axis, size: 50, space: 34, values: (_, ticks) => ticks.map((v) => (v ? short(Math.round(v * 100) / 100) : "0")) },
      ],
      series: [{}, ...this.set.lines.map((line) => ({
        stroke: colour(line.tone), width: line.width ?? 1.5, dash: line.dash, points: { show: false }, spanGaps: false,
        fill: line.fill ? fade(colour(line.tone), line.fill) : undefined,
      }))],
      hooks: { setCursor: [(u) => this.tell(u.cursor.idx)] },
    };
  }

  draw(times) {
    this.data = [times, ...this.set.lines.map((line) => times.map(line.value))];
    this.u.setData(this.data);
    this.tell(this.u.cursor.idx);
  }

  // tell writes the values under the pointer, or the newest, into the legend.
  tell(index) {
    if (!this.data) {
      return;
    }
    const last = this.data[0].length - 1;
    this.set.lines.forEach((line, i) => {
      const values = this.data[i + 1];
      // The newest second may not be in from every server yet.
      const v = index != null ? values[index] : values[last] ?? values[last - 1];
      this.values[i].textContent = v == null && line.none ? line.none : this.set.format(v);
    });
  }

  destroy() {
    this.observer.disconnect();
    this.u.destroy();
    this.legend.remove();
    this.plot.remove();
  }
}

const fade = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

// nice is a round number somewhat above max, so that the scale does not jump every second.
function nice(max) {
  if (!(max > 0)) {
    return 1;
  }
  const unit = 10 ** Math.floor(Math.log10(max));
  const steps = [1.2, 1.6, 2, 2.5, 3, 4, 5, 6, 8, 10, 12];
  return unit * steps.find((s) => s * unit >= max * 1.08);
}

// label is the time at a tick, unless it is so near the right edge that it would be cut.
function label(u, t, step) {
  const { min, max } = u.scales.x;
  return (max - t) / (max - min) * u.bbox.width / devicePixelRatio < (step < 60 ? 16 : 8) ? "" : clock(t, step);
}

function clock(t, step) {
  const d = new Date(t * 1000);
  const two = (n) => String(n).padStart(2, "0");
  const short = two(d.getHours()) + ":" + two(d.getMinutes());
  return step < 60 ? short + ":" + two(d.getSeconds()) : short;
}
