(function () {
  var figure = document.getElementById("walked"), steps = figure.querySelectorAll(".step");
  var buttons = document.getElementById("buttons"), where = document.getElementById("where"), now = 0;
  function show(step) {
    now = Math.max(0, Math.min(steps.length - 1, step));
    steps.forEach(function (one, i) { one.classList.toggle("now", i === now); });
    where.textContent = "step " + (now + 1) + " of " + steps.length;
  }
  function go(way) { show(way === "first" ? 0 : way === "back" ? now - 1 : now + 1); }
  buttons.addEventListener("click", function (event) {
    if (event.target.dataset.go) go(event.target.dataset.go);
  });
  figure.addEventListener("keydown", function (event) {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      go(event.key === "ArrowLeft" ? "back" : "on");
      event.preventDefault();
    }
  });
  figure.classList.add("live");
  buttons.hidden = false;
  where.setAttribute("aria-live", "polite");
  var asked = Array.prototype.findIndex.call(steps, function (one) { return "#" + one.id === location.hash; });
  show(Math.max(0, asked));
})();
