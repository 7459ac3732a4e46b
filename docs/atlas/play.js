// What the pages' players share: numbers come from the page (made by the textbook's face), the script only shows them.
const show = (n) => (Number.isInteger(n) ? String(n) : n.toPrecision(3)).replace("-", "−");

function element(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A grid of buttons; pick(i, j) is called when one is chosen.
function board(rows, name, label, pick, outside = () => false) {
  const table = element("div", { class: "board", role: "group", "aria-label": label });
  table.style.gridTemplateColumns = `repeat(${rows[0].length}, max-content)`;
  rows.forEach((row, i) => row.forEach((value, j) => {
    const cell = element("button", { type: "button", class: outside(i, j) ? "outside" : `s-${name}` }, show(value));
    cell.setAttribute("aria-label", `${name} ${i}, ${j}: ${show(value)}`);
    cell.addEventListener("click", () => pick(i, j));
    cell.dataset.at = `${i},${j}`;
    table.append(cell);
  }));
  return element("div", { class: "boards" }, element("p", { class: `s-${name}` }, label), table);
}

function mark(holder, places) {
  const chosen = new Set(places.map(([i, j]) => `${i},${j}`));
  holder.querySelectorAll("button[data-at]").forEach((cell) => cell.classList.toggle("on", chosen.has(cell.dataset.at)));
}

function chooser(label, values, chosen, changed) {
  const select = element("select", {}, ...values.map((v) => element("option", { value: v }, String(v))));
  select.value = chosen;
  select.addEventListener("change", () => changed(select.value));
  return element("label", {}, `${label} `, select);
}
