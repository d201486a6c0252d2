"""Experiments on the model in the page: a question, then a panel that measures its answer.

Python computes nothing here: the panel (``export/page/panels.js``) asks the engine in the reader's
browser, after the reader has committed to an answer and has asked for the weights. In a notebook,
which lies beside no engine, the panel says where it runs. Chapter: windows.
"""

from __future__ import annotations

from collections.abc import Sequence

from nanogpt2.errors import UserError
from nanogpt2.lab.page import Html, part, rendered, script
from nanogpt2.lab.questions import predict

PANELS = ("windows", "norms", "softcap", "rotary", "values", "tokens", "core", "muon")
"""experiments that ``panels.js`` has"""
SCRIPT = script("choice", "panel")
MEGABYTES = "NANOGPT2_MEGABYTES"
"""stands for the weights' size until a page is built that carries them"""


def panel(name: str, question: str, choices: Sequence[str]) -> Html:
    """A prediction, and the experiment of that name on the page's model, which measures the answer.

    ``choices`` stand in the order in which the experiment counts them. Raises UserError where no
    experiment has that name.
    """
    if name not in PANELS:
        raise UserError(f"no panel is called {name!r}; take one of {', '.join(PANELS)}")
    bet = predict(question, choices)
    data = {"key": bet.key, "panel": name, "choices": bet.choices, "megabytes": MEGABYTES}
    return Html(bet.html + part("panel", rendered("panel"), SCRIPT, **data), repr(bet))
