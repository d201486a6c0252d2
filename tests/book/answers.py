"""What a page tells of its questions' answers before a reader has committed to one."""

from __future__ import annotations

import json
import re
from typing import Any

SHORT = 20
"""letters below which an explanation is a phrase that may stand anywhere ("Try another.")"""
UNSEEN = "script, style, template, [hidden], details:not([open]) > :not(summary)"

OF_THE_BROWSER = """() => {
  const letters = (text) => text.replace(/[^\\p{L}\\p{N}]+/gu, "").toLowerCase();
  const words = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;
  const seen = letters(document.querySelector("article").innerText);
  const told = [...document.querySelectorAll(".ng-quiz")]
    .flatMap((box) => JSON.parse(box.dataset.whys).map(words));
  for (const after of document.querySelectorAll(".ng-reveal .ng-after")) {
    const why = after.cloneNode(true);
    for (const label of why.querySelectorAll("strong")) label.remove();
    told.push(why.textContent);
  }
  for (const cause of document.querySelectorAll(".ng-case template.ng-cause"))
    for (const line of cause.content.querySelectorAll("p:not(:has(strong)), pre"))
      told.push(line.textContent);
  return told.filter((text) => letters(text).length >= SHORT && seen.includes(letters(text)));
}""".replace("SHORT", str(SHORT))
"""the same, by what Chromium lays out as visible"""


def letters(text: str) -> str:
    """Letters and digits alone, so that quotes and line ends of code do not hide a sentence."""
    return re.sub(r"[\W_]+", "", text).lower()


def shown_answers(page: Any) -> list[str]:
    """Explanations of the page's questions (BeautifulSoup) that stand on it in full view."""
    from bs4 import BeautifulSoup

    told = [
        BeautifulSoup(why, "html.parser").get_text()
        for box in page.select(".ng-quiz")
        for why in json.loads(box["data-whys"])
    ]
    for after in page.select(".ng-reveal .ng-after"):
        why = BeautifulSoup(str(after), "html.parser")
        for label in why.select("strong"):  # "Measured: three." is not in the code
            label.decompose()
        told.append(why.get_text())
    told += [  # select and get_text leave out what stands in a template
        "".join(line.find_all(string=True))
        for cause in page.find_all(class_="ng-cause")
        for line in cause.find_all(["p", "pre"])
        if not line.find("strong")
    ]
    article = BeautifulSoup(str(page.select_one("article") or page), "html.parser")
    for part in article.select(UNSEEN):
        part.decompose()
    seen = letters(article.get_text())
    return [text for text in told if len(letters(text)) >= SHORT and letters(text) in seen]
