// The page of one run: data is what examples/page/facts.py and exhibits.py have made.
"use strict";

const nothing = (id, text) => at(id).append(el("p", { class: "quiet" }, text));
const training = data.state === "training";
const later = (what) => training ? `${what} are drawn after an epoch, where there is time for it, and at the end.` : `${what} were not drawn.`;
const after = (part) => part.step === undefined ? "" : `After step ${whole(part.step)}. `;

// ---------------------------------------------------------------- what state it is in

at("name").append(named(data.name));
at("state").append(el("span", { class: `state ${data.state}` }, data.state), data.why ? named(data.why) : "");
if (data.progress && data.progress.steps) {
  const { step, steps, epoch, epochs, seconds_left } = data.progress;
  const bar = at("progress").querySelector("progress");
  bar.max = steps;
  bar.value = step;
  bar.setAttribute("aria-label", "steps done");
  at("progress").hidden = false;
  const parts = [`epoch ${epoch} of ${epochs}`, `step ${whole(step)} of ${whole(steps)}`];
  if (training && !missing(seconds_left) && step < steps) parts.push(`about ${lasting(seconds_left)} left`);
  at("progress").querySelector("p").append(parts.join(" · "));
}

let pressed = false;  // somebody drags, or holds a key
for (const [type, value] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false], ["keydown", true], ["keyup", false], ["blur", false]])
  addEventListener(type, () => { pressed = value; }, true);

(function refresh() {
  const line = at("fresh"), age = Date.now() / 1000 - data.written;
  line.append(`Written ${clock(data.written)}.`);
  if (!training) return;
  if (age > data.patience) {
    line.append(` That is ${lasting(age)} ago: the run may have ended without a word, so this page has stopped to refresh itself.`);
    line.append(el("button", { type: "button", onclick() { location.reload(); } }, "Look again"));
    return;
  }
  let paused = memory.get("paused") === true;
  const button = el("button", { type: "button", onclick() {
    paused = !paused;
    memory.set("paused", paused);
    say();
  } });
  const say = () => { button.textContent = paused ? "Refresh again" : "Pause refreshing"; };
  say();
  line.append(button);
  const again = () => {
    if (paused || document.hidden || pressed) return setTimeout(again, 2000);
    keepPlace();
    location.reload();
  };
  // a while after the next one is due
  setTimeout(again, Math.max(5, data.every - age + 2) * 1000);
})();

// ---------------------------------------------------------------- numbers

(function scores() {
  const add = (label, value, note) => at("scores").append(el("div", { class: "score" },
    el("p", { class: "label" }, label), el("p", { class: "value" }, value), el("p", { class: "note" }, note || "")));
  const { one_view: one, ten_views: ten } = data.scores;
  for (const [test, views] of [[ten, "ten views"], [one, "one view"]])
    if (test) add(`Top-1, ${views}`, percent(test.top1), `${between(test.top1_interval)}, after epoch ${test.epoch}`);
  const best = ten || one;
  if (best && data.classes > 5) add(`Top-5, ${ten ? "ten views" : "one view"}`, percent(best.top5), between(best.top5_interval));
  if (best) add("Loss, held out", plain(best.loss), data.chance ? `guessing: ${plain(data.chance.loss)}` : "");
  if (!missing(data.speed.images_per_s)) {
    add("Images a second", plain(data.speed.images_per_s), `${lasting(data.speed.seconds)} of training`);
    add("Waiting for data", percent(data.speed.waiting_for_data), "of the time of training");
  }
  if (best) at("scores").append(el("p", { class: "quiet" }, `Intervals hold the true share with 95 % confidence; ${times(best.images, "image", "images")} held out.`));
})();

// ---------------------------------------------------------------- curves

(function curves() {
  const c = data.curves, tests = data.tests;
  if (!c.x.length) return nothing("curves", "No step has been done yet.");
  const few = c.x.length < 20, of = (key) => tests.map((test) => test[key]);
  const batch = c.width === 1 ? "each batch" : `mean of ${whole(c.width)} batches`;
  const x_label = "images seen", last = (values) => values.length ? values[values.length - 1] : null;
  const everywhere = (value) => [c.x, c.x.map(() => value)];
  const common = { x_label, sync: "run", keep: true };

  function learned(key, title, share, low, high) {
    const tables = [[c.x, c[key]]], series = [{ label: batch, colour: c.running ? "pale" : "blue", width: c.running ? 1 : 2, points: few }], bands = [];
    if (low && c.width > 1) {
      tables.push([c.x, c[high], c[low]]);
      series.push({ label: "highest", colour: "pale", width: 0.5 }, { label: "lowest", colour: "pale", width: 0.5 });
      bands.push([2, 3]);
    }
    if (c.running) { tables.push([c.x, c[`mean_${key}`]]); series.push({ label: `mean of ${whole(c.running)} batches`, colour: "blue" }); }
    if (tests.length) { tables.push([of("x"), of(key)]); series.push({ label: "held out", colour: "red", points: true }); }
    if (data.chance) { tables.push(everywhere(data.chance[key])); series.push({ label: "guessing", colour: "grey", dash: [6, 5], width: 1.2 }); }
    const now = share ? percent : plain;
    return chart({ ...common, name: key, title, tables, series, bands, share, fixed: share ? [0, 1] : null,
      whiskers: share && tests.length ? { x: of("x"), low: of("low"), high: of("high") } : null,
      about: `Over ${whole(last(c.x))} training images. Last batches: ${now(last(c[`mean_${key}`] || c[key]))}.` + (tests.length ? ` Last test: ${now(last(of(key)))}.` : "") });
  }
  const one = (key, title, share, note) => chart({ ...common, name: key, title, share, note, height: 190,
    tables: [[c.x, c[key]]], series: [{ label: title.toLowerCase(), colour: "blue", width: 1.5, points: few }], about: `Last: ${(share ? percent : plain)(last(c[key]))}.` });
  at("curves").append(learned("loss", "Loss", false, "low", "high"), learned("top1", "Top-1", true));
  const small = el("div", { class: "charts small" },
    one("lr", "Learning rate"), one("speed", "Images a second"), one("waiting", "Share of time waiting for data", true));
  at("curves").after(small, el("p", { class: "quiet" }, "Drag over a chart to look closer, double-click to see all again; a name in a legend hides its curve. "
    + (tests.length ? "Bars at the tests: 95 % confidence." : "The first test comes at the end of the epoch.")));
})();

// ---------------------------------------------------------------- kernels

(function kernels() {
  const k = data.kernels;
  if (!k) return nothing("kernels", later("Kernels"));
  const [moved, place] = [k.moved, at("kernels")];
  const said = missing(moved) ? "" : moved === 0 ? "Training has not moved them." : moved < 0.01 ? "Training has moved them by less than 1 % so far, too little to draw what it added." : `Training has moved them by ${percent(moved, 0)} of the length of the first weights.`;
  place.append(el("p", {}, `${after(k)}Each kernel is scaled to its own range; grey is zero. ${said}`));
  place.append(el("div", { class: "columns" }, k.columns.map((column, i) => el("figure", {},
    el("h3", {}, k.columns.length > 1 ? `Column ${i + 1}` : "One column"),
    el("img", { class: "sheet", src: column.kernels, alt: `${column.count} kernels of column ${i + 1}, ${percent(column.colour, 0)} of their energy in colour` }),
    el("p", { class: "quiet" }, `${percent(column.colour, 0)} of a kernel's energy is colour, on average`),
    column.added ? [el("h3", {}, "What training added"),
      el("img", { class: "sheet", src: column.added, alt: `what training added to the kernels of column ${i + 1}` }),
      el("p", { class: "quiet" }, `${percent(column.added_colour, 0)} colour`)] : null))));
  if (k.columns.length === 2) {
    const ranks = k.columns[0].shares.map((_, i) => i + 1);
    place.append(el("p", {}, `The columns' shares of colour lie ${digits(100 * k.apart, 1)} points apart`
      + (missing(k.added_apart) ? "." : `, those of what training added ${digits(100 * k.added_apart, 1)} points.`)
      + (missing(k.first_colour) ? "" : ` The first weights had ${percent(k.first_colour, 0)}; random ones have 67 %.`)
      + " In the paper's Figure 3 one column has become largely colour-agnostic, the other largely colour-specific: the columns' curves then come apart."));
    const sorted = (key, title) => chart({ name: key, title, x_label: "rank", share: true, fixed: [0, 1], height: 220,
      tables: [[ranks, k.columns[0][key], k.columns[1][key]]], series: [{ label: "column 1", colour: "blue" }, { label: "column 2", colour: "red", dash: [8, 3] }],
      about: k.columns.map((column, i) => `Column ${i + 1}: ${percent(column[key][0])} to ${percent(column[key][ranks.length - 1])}.`).join(" ") });
    place.append(el("div", { class: "charts" }, sorted("shares", "Share of colour of each kernel, sorted"),
      k.columns[0].added_shares ? sorted("added_shares", "The same of what training added") : null));
  }
})();

// ---------------------------------------------------------------- predictions, neighbours

(function predictions() {
  const p = data.predictions;
  if (!p) return nothing("predictions", later("Predictions"));
  const right = p.pictures.filter((each) => each.best[0][0] === each.class).length;
  at("predictions").append(el("p", {}, `${after(p)}${whole(right)} of these ${whole(p.pictures.length)} held-out pictures right, with ${p.views === 1 ? "one view" : "ten views"} of each.`));
  at("predictions").append(el("div", { class: "cards" }, p.pictures.map((each) => {
    const good = each.best[0][0] === each.class;
    return el("div", { class: "card" }, el("img", { src: each.image, alt: `held-out picture of the class ${each.class}`, width: 200, height: 200 }),
      el("div", {}, el("p", { class: "truth" }, named(each.class), " ", el("span", { class: good ? "right" : "wrong" }, good ? "✓ right" : "✗ wrong")),
        el("ol", { class: "best" }, each.best.map(([k, share]) => {
          const bar = el("span", { class: "bar" });
          bar.style.width = `${100 * share}%`;
          return el("li", { class: k === each.class ? "own" : null }, bar, named(k), el("span", {}, percent(share)));
        }))));
  })));
})();

(function neighbours() {
  const n = data.neighbours;
  if (!n) return nothing("neighbours", later("Neighbours"));
  at("neighbours").append(el("p", {}, `${after(n)}For held-out pictures, the nearest of ${whole(n.pool)} training pictures: in the space of fc7, the net's last hidden layer, `
    + `${whole(n.right.fc7)} of ${whole(n.of)} are of the picture's own class; by their pixels, ${whole(n.right.pixels)}.`));
  const strip = (title, row, near) => [el("p", { class: "row" }, title), el("div", { class: "strip" }, near.map((each) => {
    const own = each.class === row.class;
    return el("figure", {}, el("img", { src: each.image, alt: `${each.class}, ${own ? "the same class" : "another class"}`, width: 96, height: 96 }),
      el("figcaption", { class: own ? "right" : "wrong" }, own ? "✓ " : "✗ ", named(each.class)));
  }))];
  for (const row of n.rows)
    at("neighbours").append(el("div", { class: "near" },
      el("div", { class: "query" }, el("img", { src: row.image, alt: `held-out picture of the class ${row.class}`, width: 96, height: 96 }), el("strong", {}, named(row.class))),
      el("div", {}, strip("in fc7", row, row.fc7), strip("in pixels", row, row.pixels))));
})();

// ---------------------------------------------------------------- class by class

(function confusion() {
  const a = data.answers;
  if (!a) return nothing("confusion", training ? "After the first epoch." : "No test has been done."), nothing("classes", training ? "After the first epoch." : "No test has been done.");
  const place = at("confusion"), views = a.views === 1 ? "one view" : "ten views", { names, counts, images } = a.square;
  place.append(el("p", {}, `${after(a)}With ${views}, ${whole(a.wrong)} of ${times(a.images, "image", "images")} taken for another class.`
    + (names.length < a.of_classes ? ` The ${names.length} of ${whole(a.of_classes)} classes with the most of them:` : " Rows: the class; columns: what its images were taken for.")));
  const cell = (n, i, j) => {
    const share = n / images[i], box = el("td", { class: i === j ? "own" : null }, n ? whole(n) : "");
    if (n) box.style.backgroundColor = `rgba(${colour("heat")}, ${(0.08 + 0.5 * share).toFixed(3)})`;
    return box;
  };
  place.append(el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "confusion of classes" }, el("table", { class: "square" },
    el("caption", { class: "visually-hidden" }, "How many images of each class (rows) were taken for which (columns)"),
    el("thead", {}, el("tr", {}, el("td", {}), names.map((each) => el("th", { scope: "col", title: each }, named(each))))),
    el("tbody", {}, counts.map((row, i) => el("tr", {}, el("th", { scope: "row", title: names[i] }, named(names[i])), row.map((n, j) => cell(n, i, j))))))));
  if (a.pairs.length) place.append(el("details", {}, el("summary", {}, "The commonest confusions"), el("ul", { class: "plain" },
    a.pairs.map((pair) => el("li", {}, `${whole(pair.times)} of `, named(pair.class), " taken for ", named(pair.taken_for))))));

  at("classes").append(el("p", {}, `Share of right answers, ${views}, the hardest first.`
    + (a.left_out ? ` The ${whole(a.left_out)} easiest are left out; metrics.json has all after the last test.` : "")
    + (a.untested ? ` ${times(a.untested, "class has", "classes have")} no image held out.` : "")));
  at("classes").append(table("classes", "Share of right answers of each class", [
    { title: "Class", value: (row) => row.name, show: (row) => named(row.name) },
    { title: "Right", number: true, value: (row) => row.top1, show: (row) => percent(row.top1, 0) },
    { title: "95 % interval", number: true, value: (row) => row.interval[0], show: (row) => between(row.interval) },
    { title: "Images", number: true, value: (row) => row.images, show: (row) => whole(row.images) },
    { title: "Most taken for", value: (row) => row.other || null, show: (row) => row.other ? el("span", {}, named(row.other), ` (${whole(row.times)})`) : "–" },
  ], a.rows));
})();

// ---------------------------------------------------------------- the rest

(function warnings() {
  const skipped = data.skipped || { count: 0, files: [] }, said = data.warnings || [];
  if (!said.length && !skipped.count) return nothing("warnings", data.warnings ? "None." : "What was warned of is not kept for this run.");
  if (said.length) at("warnings").append(el("ul", { class: "plain" }, said.map((each) => el("li", {}, named(each)))));
  if (skipped.count) at("warnings").append(el("details", {}, el("summary", {}, `${times(skipped.count, "file was", "files were")} skipped`), el("ul", { class: "plain" },
    skipped.files.map(([path, why]) => el("li", {}, named(path), ": ", named(why))),
    skipped.count > skipped.files.length ? el("li", {}, `and ${whole(skipped.count - skipped.files.length)} more`) : null)));
})();

at("settings").append(el("dl", {}, [...data.settings, ...Object.entries(data.versions)].map(([key, value]) => [el("dt", {}, named(key)), el("dd", {}, named(value))])));

drawCharts();
findPlace();
document.documentElement.dataset.ready = "yes";
