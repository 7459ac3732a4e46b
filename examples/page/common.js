// What both pages use: elements, numbers, tables that can be sorted, charts.  Names only ever become text.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

/** An element with attributes and children; texts become text nodes.  Attributes: class, and whatever it has. */
function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}
/** A name of a class or a file, which may be written from right to left. */
const named = (text) => el("bdi", {}, text);
const at = (id) => document.getElementById(id);

// ---------------------------------------------------------------- numbers

const missing = (value) => value === null || value === undefined;
const digits = (value, most) => Number(value).toLocaleString("en", { maximumFractionDigits: most, minimumFractionDigits: most });
const whole = (value) => missing(value) ? "–" : Number(value).toLocaleString("en");
const percent = (value, most = 1) => missing(value) ? "–" : `${digits(100 * value, most)} %`;
const between = (pair) => pair ? `${digits(100 * pair[0], 1)} to ${digits(100 * pair[1], 1)} %` : "";
const plain = (value) => missing(value) ? "–" : `${Number(Number(value).toPrecision(4))}`;
const times = (count, one, many) => `${whole(count)} ${count === 1 ? one : many}`;

function lasting(seconds) {
  if (missing(seconds)) return "–";
  const s = Math.round(seconds);
  if (s < 90) return times(s, "second", "seconds");
  if (s < 5400) return times(Math.round(s / 60), "minute", "minutes");
  const hours = Math.floor(s / 3600), minutes = Math.round((s % 3600) / 60);
  if (s < 172800) return `${hours} h ${minutes} min`;
  return `${digits(s / 86400, 1)} days`;
}
const clock = (seconds) => new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// ---------------------------------------------------------------- what stays when the page reads itself anew

const memory = {
  key: `minigrad ${location.pathname} `,
  get(name) { try { return JSON.parse(sessionStorage.getItem(this.key + name)); } catch { return null; } },
  set(name, value) { try { sessionStorage.setItem(this.key + name, JSON.stringify(value)); } catch { /* not allowed: forgotten */ } },
};

const places = () => [...document.querySelectorAll("a, button, summary, input, [tabindex]")];
const boxes = () => [...document.querySelectorAll(".scroll")];
const folded = () => [...document.querySelectorAll("details")];

/** Where the reader is, for findPlace() on the page that is read next. */
function keepPlace() {
  memory.set("place", { y: scrollY, focus: places().indexOf(document.activeElement), open: folded().map((each) => each.open),
    boxes: boxes().map((each) => [each.scrollLeft, each.scrollTop]) });
}
function findPlace() {
  const place = memory.get("place");
  if (!place) return;
  memory.set("place", null);
  folded().forEach((each, i) => { each.open = Boolean(place.open[i]); });
  boxes().forEach((each, i) => { if (place.boxes[i]) [each.scrollLeft, each.scrollTop] = place.boxes[i]; });
  history.scrollRestoration = "manual";
  const there = () => scrollTo(0, place.y);
  there();
  // Pictures above that come later would push it down again.
  if (document.readyState !== "complete") addEventListener("load", there, { once: true });
  const focus = places()[place.focus];
  if (focus) focus.focus({ preventScroll: true });
}

// ---------------------------------------------------------------- tables

/**
 * A table whose columns can be sorted with their headings' buttons.
 * columns: {title, value(row) for sorting, show(row) -> text or element, number}; the first is each row's heading.
 */
function table(name, caption, columns, rows) {
  const body = el("tbody");
  const line = (row) => el("tr", {}, columns.map((column, i) =>
    el(i ? "td" : "th", { scope: i ? null : "row", class: column.number ? "number" : null }, column.show(row))));
  let [by, down] = memory.get(`sort ${name}`) || [null, false];
  const heads = columns.map((column, i) => {
    const button = column.value && el("button", { type: "button", onclick() {
      [by, down] = [i, by === i ? !down : Boolean(column.number)];
      memory.set(`sort ${name}`, [by, down]);
      fill();
    } }, column.title);
    return el("th", { scope: "col", class: column.number ? "number" : null }, button || column.title);
  });
  function fill() {
    const sorted = [...rows];
    if (by !== null && columns[by] && columns[by].value) {
      const value = columns[by].value;
      sorted.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (missing(x) || missing(y)) return missing(x) - missing(y);  // what is missing comes last, either way
        return (typeof x === "number" ? x - y : String(x).localeCompare(String(y))) * (down ? -1 : 1);
      });
    }
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== by ? "none" : down ? "descending" : "ascending"));
    body.replaceChildren(...sorted.map(line));
  }
  fill();
  return el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "data" }, el("caption", { class: "visually-hidden" }, caption), el("thead", {}, el("tr", {}, heads)), body));
}

// ---------------------------------------------------------------- charts

const charts = [];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const short = (value) => missing(value) ? "" : value >= 1e6 ? `${plain(value / 1e6)}M` : value >= 1e4 ? `${plain(value / 1e3)}k` : `${plain(value)}`;

/**
 * A chart in its figure.  wanted: {name, title, about, x, x_label, tables, series: [{label, colour, ...}], top, share,
 * whiskers: {x, low, high}}; tables are joined by their first columns, and series are their other columns, in order.
 */
function chart(wanted) {
  const place = el("div", { class: "plot" });
  const figure = el("figure", { class: wanted.wide ? "wide" : null }, el("h3", {}, wanted.title), place,
    wanted.note ? el("figcaption", {}, wanted.note) : null);
  charts.push({ wanted, place, plot: null });
  return figure;
}

// images, epochs and ranks are counted: no tick stands between two whole numbers
const whole_steps = [];
for (let power = 1; power < 1e13; power *= 10) whole_steps.push(power, 2 * power, 5 * power);

function draw(entry) {
  const { wanted, place } = entry;
  if (entry.plot) entry.plot.destroy();
  const show = wanted.share ? (value) => percent(value) : plain;
  const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const off = wanted.keep && memory.get(`off ${wanted.name}`) || [];
  const zoomed = memory.get(`zoom ${wanted.name}`);
  const joined = wanted.tables.length > 1 ? uPlot.join(wanted.tables) : wanted.tables[0];
  // Where no cursor points at a place, the legend has the last values.
  const legend = (show) => (u, value, i, at) => {
    const shown = missing(at) ? [...u.data[i]].reverse().find((each) => !missing(each)) : value;
    return missing(shown) ? "–" : show(shown);
  };
  const range = (u, low, high) => {
    if (wanted.fixed && !memory.get(`zoom ${wanted.name}`)) return wanted.fixed;
    if (missing(low)) return [0, 1];
    const bottom = wanted.share && memory.get(`zoom ${wanted.name}`) ? Math.max(0, low - 0.05 * (high - low + 0.01)) : 0;
    return [bottom, high > bottom ? high + 0.06 * (high - bottom) : bottom + 1];
  };
  const whiskers = (u) => {
    const { x, low, high } = wanted.whiskers, arm = 3.5 * devicePixelRatio;
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(u.bbox.left - arm, u.bbox.top, u.bbox.width + 2 * arm, u.bbox.height);
    u.ctx.clip();
    u.ctx.strokeStyle = colour("red");
    u.ctx.setLineDash([]);
    u.ctx.lineWidth = 1.2 * devicePixelRatio;
    x.forEach((value, i) => {
      if (missing(low[i]) || missing(high[i])) return;
      const [across, top, bottom] = [u.valToPos(value, "x", true), u.valToPos(high[i], "y", true), u.valToPos(low[i], "y", true)];
      u.ctx.beginPath();
      for (const y of [top, bottom]) { u.ctx.moveTo(across - arm, y); u.ctx.lineTo(across + arm, y); }
      u.ctx.moveTo(across, top);
      u.ctx.lineTo(across, bottom);
      u.ctx.stroke();
    });
    u.ctx.restore();
  };
  const options = {
    width: Math.max(200, place.clientWidth), height: wanted.height || 260,
    scales: { x: { time: false }, y: { range } },
    axes: [{ ...axis, size: 32, incrs: whole_steps, values: (u, ticks) => ticks.map(short) },
      { ...axis, size: 58, values: (u, ticks) => ticks.map((t) => wanted.share ? `${plain(100 * t)} %` : short(t)) }],
    series: [{ label: wanted.x_label, value: legend(whole) },
      ...wanted.series.map((series) => ({
        width: series.width || 2, spanGaps: true, dash: series.dash, label: series.label, show: series.show !== false && !off.includes(series.label),
        stroke: colour(series.colour) || series.colour, value: legend(show),
        points: { show: Boolean(series.points), size: 6, fill: colour(series.colour) || series.colour },
      }))],
    bands: (wanted.bands || []).map((series) => ({ series, fill: colour("band") })),
    cursor: { sync: wanted.sync ? { key: wanted.sync } : undefined, points: { size: 7 }, drag: { x: true, y: false } },
    hooks: {
      setSeries: wanted.keep ? [(u) => memory.set(`off ${wanted.name}`, u.series.filter((each) => !each.show).map((each) => each.label))] : [],
      draw: wanted.whiskers ? [whiskers] : [],
      setScale: [(u, key) => {
        if (key !== "x" || !entry.plot) return;
        const all = u.data[0], { min, max } = u.scales.x, closer = min > all[0] || max < all[all.length - 1];
        memory.set(`zoom ${wanted.name}`, closer ? [min, max] : null);
        place.dataset.zoom = closer ? "closer" : "all";
      }],
    },
  };
  entry.plot = null;
  place.dataset.zoom = zoomed ? "closer" : "all";
  const plot = new uPlot(options, joined, place);
  if (zoomed) plot.setScale("x", { min: zoomed[0], max: zoomed[1] });
  entry.plot = plot;
  const picture = place.querySelector(".u-wrap");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${wanted.title}. ${wanted.about}`);
  for (const head of place.querySelectorAll(".u-legend .u-series:not(:first-child) th")) {
    head.tabIndex = 0;
    head.setAttribute("role", "button");
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); head.click(); }
    });
  }
}

function drawCharts() { charts.forEach(draw); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => charts.forEach(({ plot, place, wanted }) =>
    plot && plot.setSize({ width: Math.max(200, place.clientWidth), height: wanted.height || 260 })), 100);
});
