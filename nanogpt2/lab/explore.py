"""Figures to play with: frames made by Python, turned by a range input, no kernel needed.

In a live notebook the same frames sit behind ipywidgets; a page that was executed with
``NANOGPT2_LAB=static`` carries the frames alone and works from a file, by mouse, touch or keys.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from nanogpt2.errors import UserError
from nanogpt2.lab.drawing import image
from nanogpt2.lab.page import Html, part, rendered, script

MAX_BYTES = 2_000_000
"""of one explorer: a page must stay light on a phone"""

Frame = tuple["Figure | str", str]
"""a picture (a figure, or ready HTML with no need of alt text) and what it shows"""

SCRIPT = script("explore")


class Explorer(Html):
    """What ``explore`` returns; a live notebook shows it as ipywidgets."""

    def __init__(self, html: str, text: str, widget: Callable[[], Any]) -> None:
        super().__init__(html, text)
        self.widget = widget
        """makes the ipywidgets form"""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": self.text, "text/html": self.html}
        if is_live():
            widget = self.widget()._repr_mimebundle_()
            bundle.update({k: v for k, v in widget.items() if k not in bundle})
        return bundle


def is_live() -> bool:
    """Whether a notebook kernel is running for a reader, rather than for the book's build."""
    if os.environ.get("NANOGPT2_LAB") == "static":
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    return hasattr(get_ipython(), "kernel")


def explore(
    make_frame: Callable[..., Frame],
    *,
    start: Mapping[str, Any] | None = None,
    caption: str = "",
    **values: Sequence[Any],
) -> Explorer:
    """A figure for each combination of the values of one to three parameters, behind sliders.

    Args:
        make_frame: called with one value of each parameter by name; returns a figure and its alt
            text (or HTML and a sentence).
        start: the values shown first; the first ones by default.
        caption: why to look.
        values: parameter name -> the values it can take; underscores are shown as spaces.

    Raises:
        UserError: no parameter or more than three, an empty list of values, a start that is
            not among the values, a frame without alt text, or more than 2 MB in all.
    """
    if not 1 <= len(values) <= 3:
        raise UserError(f"explore takes one to three parameters and was given {len(values)}")
    for name, options in values.items():
        if not len(options):
            raise UserError(f"explore was given no values for {name}")
    chosen = {name: options[0] for name, options in values.items()} | dict(start or {})
    try:
        first = {name: list(options).index(chosen[name]) for name, options in values.items()}
    except ValueError:
        raise UserError(f"explore cannot start at {chosen}; take it from the values") from None
    places = list(itertools.product(*(range(len(options)) for options in values.values())))
    frames = [
        image(*make_frame(**{name: values[name][i] for name, i in zip(values, at, strict=True)}))
        for at in places
    ]
    listed = {name: [_words(option) for option in options] for name, options in values.items()}
    body = rendered(
        "explore",
        controls=[(name.replace("_", " "), listed[name], first[name]) for name in values],
        frames=frames,
        first=places.index(tuple(first.values())),
        caption=caption,
    )
    html = part("explore", body, SCRIPT)
    if len(html) > MAX_BYTES:
        raise UserError(
            f"this explorer weighs {len(html) / 1e6:.1f} MB in {len(frames)} frames and a page "
            f"may have {MAX_BYTES / 1e6:.0f}; take fewer values or a simpler figure"
        )
    text = f"[explorer: {' x '.join(f'{n} ({len(v)} values)' for n, v in values.items())}]"
    return Explorer(
        html, text, lambda: _widgets(dict(zip(places, frames, strict=True)), listed, first)
    )


def _words(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _widgets(
    frames: Mapping[tuple[int, ...], str],
    listed: Mapping[str, Sequence[str]],
    first: Mapping[str, int],
) -> Any:
    import ipywidgets

    sliders = [
        ipywidgets.SelectionSlider(
            options=[(words, i) for i, words in enumerate(options)],
            index=first[name],
            description=name.replace("_", " "),
            style={"description_width": "initial"},
        )
        for name, options in listed.items()
    ]
    view = ipywidgets.HTML()

    def turn(_: Any = None) -> None:
        view.value = part("frame", frames[tuple(slider.value for slider in sliders)])

    for slider in sliders:
        slider.observe(turn, "value")
    turn()
    return ipywidgets.VBox([*sliders, view])
