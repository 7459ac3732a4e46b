"""What a reader may play with: numbers that the textbook's face has made, and a few lines of plain JavaScript."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def player(name: str, data: dict[str, Any], script: Path, words: str, without: str) -> tuple[str, str]:
    """(HTML, script) of a player that draws itself into #NAME-play from the JSON in #NAME-data.

    words: what to do.  without: HTML that says something where no script runs, and stays below where one does.
    """
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    body = (
        f"<p>{words} All numbers were computed by the textbook’s face when the page was made.</p>"
        f'<div class="play" id="{name}-play"><p class="note">The player needs JavaScript; everything else does not.</p>'
        f'</div><script type="application/json" id="{name}-data">{text}</script>{without}'
    )
    return body, (HERE / "play.js").read_text(encoding="utf-8") + script.read_text(encoding="utf-8")
