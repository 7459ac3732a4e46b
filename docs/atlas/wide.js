// Marks what is wider than its box and must be scrolled, so that style.css can say so.
(() => {
  const look = (box) => box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  const boxes = () => document.querySelectorAll(".formula, .scroll-x, .scroll, .turns, .code, .board");
  const all = () => boxes().forEach(look);
  addEventListener("load", all);
  addEventListener("resize", all);
  document.addEventListener("toggle", all, true);  // what was folded has its width now
  document.addEventListener("click", () => setTimeout(all));  // players draw themselves anew
})();
