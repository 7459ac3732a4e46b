// The page of all runs: data is what examples/page/index.py has made.
"use strict";

at("fresh").append(`Written ${clock(data.written)}; a run rewrites this page when it begins and when it ends. ${times(data.runs.length, "run", "runs")}.`);

(function index() {
  if (!data.runs.length) return at("runs").append(el("p", { class: "quiet" }, "There is no run in this folder."));
  const dashes = [undefined, [8, 4], [2, 3]];
  const drawn = data.runs.filter((run) => run.tests.length);
  const hidden = new Set(memory.get("hidden") || drawn.slice(8).map((run) => run.name));

  if (drawn.length) {
    const figure = (key, title, share) => chart({ name: key, title, share, fixed: share ? [0, 1] : null, x_label: "epoch", sync: "runs", height: 320,
      tables: drawn.map((run) => [run.tests.map((test) => test.epoch), run.tests.map((test) => test[key])]),
      series: drawn.map((run, i) => ({ label: run.name, colour: `run-${i % 8}`, dash: dashes[Math.floor(i / 8) % dashes.length], points: true, show: !hidden.has(run.name) })),
      about: drawn.map((run) => `${run.name}: ${(share ? percent : plain)(run.tests[run.tests.length - 1][key])}`).join("; ") });
    at("curves").append(figure("top1", "Top-1", true), figure("loss", "Loss", false));
  } else at("curves").append(el("p", { class: "quiet" }, "No run has been tested yet."));

  const toggle = (run) => el("input", { type: "checkbox", checked: !hidden.has(run.name), "aria-label": `draw the curves of ${run.name}`, onchange(event) {
    if (event.target.checked) hidden.delete(run.name); else hidden.add(run.name);
    memory.set("hidden", [...hidden]);
    const i = drawn.indexOf(run);
    for (const { plot, wanted } of charts) { wanted.series[i].show = event.target.checked; plot.setSeries(i + 1, { show: event.target.checked }); }
  } });
  const top1 = (views) => ({ title: `Top-1, ${views === "ten_views" ? "ten views" : "one view"}`, number: true,
    value: (run) => run.scores && run.scores[views] ? run.scores[views].top1 : null,
    show: (run) => { const test = run.scores && run.scores[views]; return test ? el("span", {}, percent(test.top1), el("br"), el("span", { class: "quiet" }, between(test.top1_interval))) : "–"; } });
  at("runs").append(table("runs", "All runs", [
    { title: "Run", value: (run) => run.name, show: (run) => el("span", {}, run.link ? el("a", { href: run.link }, named(run.name)) : named(run.name), run.why ? el("span", { class: "quiet" }, " ", named(run.why)) : null) },
    { title: "Curves", show: (run) => run.tests.length ? toggle(run) : "" },
    { title: "State", value: (run) => run.state, show: (run) => el("span", { class: `state ${run.state}` }, run.state) },
    { title: "Begun", value: (run) => run.started, show: (run) => run.started.slice(0, 16) || "–" },
    { title: "Preset", value: (run) => run.preset, show: (run) => named(run.preset || "–") },
    top1("one_view"), top1("ten_views"),
    { title: "Epochs", number: true, value: (run) => run.epoch, show: (run) => missing(run.epoch) ? "–" : `${run.epoch} of ${missing(run.epochs) ? "?" : run.epochs}` },
    { title: "Images", number: true, value: (run) => run.images, show: (run) => whole(run.images) },
    { title: "Images/s", number: true, value: (run) => run.speed, show: (run) => plain(run.speed) },
    { title: "Trained", number: true, value: (run) => run.seconds, show: (run) => lasting(run.seconds) },
  ], data.runs));
})();

drawCharts();
document.documentElement.dataset.ready = "yes";
