"""From a run's folder to what a person reads: ``report.html``, ``report.md``, the README's picture.

Everything is drawn from the files that the stages left behind, so a report can be written again at
any time: ``python -m nanogpt2.reporting.report RUN``. Chapter: speedrun.
"""
