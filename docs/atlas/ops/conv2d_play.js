// The player of conv2d: choose a window; an output shows what it sees, a pixel the outputs that see it.
(() => {
  const data = JSON.parse(document.getElementById("conv-data").textContent);
  const home = document.getElementById("conv-play");
  const set = { kernel: 3, stride: 2, padding: 1, dilation: 1 };
  const n = data.x.length;

  // [row of x, tap] pairs of one axis of window i: the formula's s i + d u - p.
  const rows = (i) => [...Array(set.kernel).keys()].map((u) => [set.stride * i + set.dilation * u - set.padding, u]);
  const inside = (h) => h >= 0 && h < n;

  function draw() {
    const found = data.results[[set.kernel, set.stride, set.padding, set.dilation].join()];
    const controls = element("div", { class: "controls" });
    for (const [name, values] of Object.entries(data.choices)) {
      controls.append(chooser(name, values, set[name], (v) => { set[name] = Number(v); draw(); }));
    }
    const said = element("p", { class: "said", "aria-live": "polite" });
    if (!found) {
      said.textContent = "The window does not fit the padded image.";
      home.replaceChildren(controls, said);
      return;
    }
    const w = data.w.slice(0, set.kernel).map((row) => row.slice(0, set.kernel));
    const p = set.padding;
    const xp = [...Array(n + 2 * p).keys()].map((h) => [...Array(n + 2 * p).keys()].map(
      (l) => (inside(h - p) && inside(l - p) ? data.x[h - p][l - p] : 0)));
    const seen = (i, j) => rows(i).flatMap(([h, u]) => rows(j).map(([l, v]) => [h, l, u, v]));
    const parts = {};
    const output = (i, j) => {
      const all = seen(i, j);
      mark(parts.x, all.map(([h, l]) => [h + p, l + p]));
      mark(parts.w, all.map(([, , u, v]) => [u, v]));
      mark(parts.y, [[i, j]]);
      mark(parts.dx, all.filter(([h, l]) => inside(h) && inside(l)).map(([h, l]) => [h, l]));
      said.textContent = `y[${i},${j}] = ${all.map(([h, l, u, v]) => `${show(w[u][v])}·${show(xp[h + p][l + p])}`)
        .join(" + ")} = ${show(found.y[i][j])}`;
    };
    const pixel = (h, l) => {
      const all = found.y.flatMap((row, i) => row.flatMap((_, j) => seen(i, j).filter(([a, b]) => a === h && b === l)
        .map(([, , u, v]) => [i, j, u, v])));
      mark(parts.x, [[h + p, l + p]]);
      mark(parts.dx, [[h, l]]);
      mark(parts.y, all.map(([i, j]) => [i, j]));
      mark(parts.w, all.map(([, , u, v]) => [u, v]));
      const terms = all.map(([i, j, u, v]) => `w[${u},${v}]·dy[${i},${j}]`).join(" + ") || "nothing: no window sees it";
      said.textContent = `dx[${h},${l}] = ${terms} = ${show(found.dx[h][l])}, where every dy is 1`;
    };
    parts.x = board(xp, "x", "x, padded", (h, l) => inside(h - p) && inside(l - p) && pixel(h - p, l - p),
      (h, l) => !(inside(h - p) && inside(l - p)));
    parts.w = board(w, "w", "w", () => {});
    parts.y = board(found.y, "y", "y: choose an output", output);
    parts.dx = board(found.dx, "dx", "dx, for dy = 1", pixel);
    home.replaceChildren(controls, element("div", { class: "strip" }, parts.x, parts.w, parts.y, parts.dx), said);
    output(0, 0);
  }
  draw();
})();
