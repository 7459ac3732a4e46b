"""The pages in a headless Chromium: axe-core looks whether all can use them, and every button of a player is pressed.

    npm install axe-core                                    (once, anywhere)
    python docs/atlas/browser_check.py site/ node_modules/axe-core/axe.min.js

Each page is opened as on a desktop and as on a phone, light and dark.  A page is at fault where axe finds one of its
rules broken, where it is wider than the screen, where something is cut, or scrolls and does not say so, and where a
player has not drawn itself, or says of its numbers, which the textbook's face has made, what is not so: "1 + 3 = 5".
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREENS = ((1280, False), (390, True))  # width in pixels, dark
INSIDE = """
<script>%s</script>
<script>
// What a sentence says is equal, as two numbers: "y[0,0] = 2·1 + 0·3 = 2", "... = the largest of 1, 2 = 2, at x[0,1]".
function sides(text) {
  const [, left, right] = text.replaceAll("−", "-").split(" = ");
  if (right === undefined) return null;
  const value = parseFloat(right);
  const list = left.match(/^the largest of (.*)$/);
  if (list) return [Math.max(...list[1].split(", ").map(Number)), value];
  if (!/^[-+*/ ().0-9·²^e]+$/.test(left)) return null;
  return [eval(left.replaceAll("·", "*").replaceAll("²", "**2").replaceAll("^", "**")), value];
}

// Every choice of every list, and every button: those of its sentences that are not so.
function wrong(play) {
  const faults = [];
  let checked = 0;
  const settings = [...play.querySelectorAll("select")].map((list, k) => [k, [...list.options].map((o) => o.value)]);
  for (const [k, values] of settings) for (const value of values) {
    const list = play.querySelectorAll("select")[k];
    list.value = value;
    list.dispatchEvent(new Event("change"));
    for (const button of play.querySelectorAll(".board button")) {
      button.click();
      const found = sides(play.querySelector(".said").textContent);
      if (!found) continue;
      checked += 1;
      if (!(Math.abs(found[0] - found[1]) <= 0.006 * Math.abs(found[1]) + 1e-9)) {
        faults.push(`${play.id}: ${play.querySelector(".said").textContent}`);
      }
    }
  }
  if (settings.length && checked < 20) faults.push(`${play.id}: only ${checked} sentences could be checked`);
  return faults;
}

addEventListener("load", async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  const faults = found.violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.target.join(" ")}`));
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) faults.push(`the page is ${wide} pixels wider than the screen`);
  for (const box of document.querySelectorAll("main *")) {
    if (box.closest("svg, math") || box.scrollWidth <= box.clientWidth + 1 || !box.clientWidth) continue;
    const how = getComputedStyle(box).overflowX;
    const name = `${box.tagName.toLowerCase()}.${box.className}, “${box.textContent.trim().slice(0, 40)}”`;
    if (how === "hidden" || how === "clip") faults.push(`${name} is cut`);
    else if (how !== "visible" && !box.classList.contains("wide")) faults.push(`${name} scrolls, and does not say so`);
  }
  for (const play of document.querySelectorAll(".play")) {
    if (play.querySelector("button")) faults.push(...wrong(play));
    else faults.push(`${play.id} has not drawn itself`);
  }
  parent.postMessage(faults, "*");
});
</script>
"""
AROUND = """<!doctype html><html lang="en"><meta charset="utf-8"><title>a screen</title>
<iframe title="page" src="%s" style="border:0;width:%dpx;height:900px"></iframe><pre id="found"></pre>
<script>
addEventListener("message", (event) => {
  document.getElementById("found").textContent = JSON.stringify(event.data);
});
</script></html>
"""


def faults(browser: str, page: Path, axe: str, width: int, dark: bool, folder: Path) -> list[str]:
    """What is wrong with a page on a screen of this width.  folder: for the page with axe in it."""
    text = page.read_text(encoding="utf-8").replace("</body>", INSIDE.replace("%s", axe, 1) + "</body>")
    (folder / "page.html").write_text(text, encoding="utf-8")
    (folder / "around.html").write_text(AROUND % ("page.html", width), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options += ["--virtual-time-budget=60000", "--window-size=1400,1000", "--dump-dom"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [browser, *options, (folder / "around.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    answer = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.DOTALL)
    if not answer:
        return [f"the browser gave no answer: {done.stderr.strip()[-300:]}"]
    found: Any = json.loads(html.unescape(answer[1]))
    return [str(fault) for fault in found]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("site", type=Path, help="the folder of the pages")
    parser.add_argument("axe", type=Path, help="axe.min.js of the package axe-core")
    parser.add_argument("--only", default="", metavar="NAMES", help="only these pages, with commas: lrn,conv2d")
    options = parser.parse_args(arguments)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"browser_check.py: there is no browser: install one of {', '.join(BROWSERS)}", file=sys.stderr)
        return 2
    pages = sorted(options.site.glob("*.html"))
    pages = [page for page in pages if not options.only or page.stem in options.only.split(",")]
    axe, count = options.axe.read_text(encoding="utf-8"), 0
    with tempfile.TemporaryDirectory() as folder:
        for page in pages:
            for width, dark in SCREENS:
                for fault in faults(browser, page, axe, width, dark, Path(folder)):
                    count += 1
                    print(f"{page.name}, {width} pixels, {'dark' if dark else 'light'}: {fault}")
    print(f"{len(pages)} pages, {len(SCREENS)} screens, {count} faults")
    return 1 if count or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
