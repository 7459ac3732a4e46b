// The player of lrn: choose the settings; a channel shows its window, and the slopes of its y.
(() => {
  const data = JSON.parse(document.getElementById("lrn-data").textContent);
  const home = document.getElementById("lrn-play");
  const set = { n: 5, k: 2, alpha: 0.1, beta: 0.75 };
  const count = data.x.length;
  let at = 4;

  function draw() {
    const found = data.results[[set.n, set.k, set.alpha, set.beta].join()];
    const controls = element("div", { class: "controls" });
    for (const [name, values] of Object.entries(data.choices)) {
      controls.append(chooser(name, values, set[name], (v) => { set[name] = Number(v); draw(); }));
    }
    const said = element("p", { class: "said", "aria-live": "polite" });
    const slopes = element("div");
    const pick = (_, j) => {
      at = j;
      const reach = (set.n - 1) / 2;
      const window = [...Array(count).keys()].filter((i) => Math.abs(i - j) <= reach);
      mark(x, window.map((i) => [0, i]));
      mark(y, [[0, j]]);
      slopes.replaceChildren(board([found.slopes.slice(j * count, (j + 1) * count)], "dx",
        `how much y of channel ${j} changes with each x`, () => {}));
      mark(slopes, window.map((i) => [0, i]));
      const sum = window.map((i) => (data.x[i] < 0 ? `(${show(data.x[i])})²` : `${show(data.x[i])}²`)).join(" + ");
      said.textContent = `y[${j}] = ${show(data.x[j])} / (${set.k} + ${set.alpha}·(${sum}))^${set.beta} = ${show(found.y[j])}`;
    };
    const x = board([data.x], "x", "x: eight channels of one pixel", pick);
    const y = board([found.y], "y", "y", pick);
    home.replaceChildren(controls, x, y, slopes, said);
    pick(0, at);
  }
  draw();
})();
