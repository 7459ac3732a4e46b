// The player of max_pool2d: an output shows its window and the winner, a pixel the windows that hold it.
(() => {
  const data = JSON.parse(document.getElementById("pool-data").textContent);
  const home = document.getElementById("pool-play");
  const set = { kernel: 3, stride: 2, padding: 0, ceil: 0 };
  const n = data.x.length;

  // The pixels of a window, row by row; padding and what lies beyond the edge is skipped.
  function seen(i, j) {
    const along = (o) => [...Array(set.kernel).keys()].map((u) => set.stride * o + u - set.padding)
      .filter((h) => h >= 0 && h < n);
    return along(i).flatMap((h) => along(j).map((l) => [h, l]));
  }
  // The first of the largest.
  const winner = (i, j) => seen(i, j).reduce((best, at) => (data.x[at[0]][at[1]] > data.x[best[0]][best[1]] ? at : best));

  function draw() {
    const found = data.results[[set.kernel, set.stride, set.padding, set.ceil].join()];
    const controls = element("div", { class: "controls" });
    for (const [name, values] of Object.entries(data.choices)) {
      controls.append(chooser(name, values, set[name], (v) => { set[name] = Number(v); draw(); }));
    }
    const said = element("p", { class: "said", "aria-live": "polite" });
    const outputs = found.y.flatMap((row, i) => row.map((_, j) => [i, j]));
    const output = (i, j) => {
      mark(x, seen(i, j));
      mark(y, [[i, j]]);
      mark(dx, [winner(i, j)]);
      said.textContent = `y[${i},${j}] = the largest of ${seen(i, j).map(([h, l]) => show(data.x[h][l])).join(", ")} = `
        + `${show(found.y[i][j])}, at x[${winner(i, j).join()}]`;
    };
    const pixel = (h, l) => {
      const holding = outputs.filter(([i, j]) => seen(i, j).some(([a, b]) => a === h && b === l));
      const won = holding.filter(([i, j]) => winner(i, j).join() === `${h},${l}`);
      mark(x, [[h, l]]);
      mark(dx, [[h, l]]);
      mark(y, won);
      said.textContent = `x[${h},${l}] is in ${holding.length} windows and has won ${won.length}: dx = ${show(found.dx[h][l])}`
        + ", where every dy is 1";
    };
    const x = board(data.x, "x", "x", pixel);
    const y = board(found.y, "y", "y: choose an output", output);
    const dx = board(found.dx, "dx", "dx, for dy = 1", pixel);
    home.replaceChildren(controls, element("div", { class: "strip" }, x, y, dx), said);
    output(0, 0);
  }
  draw();
})();
