"""What each chapter measures and draws: one folder a chapter, by the chapter's key.

In a folder ``measures`` and ``tables`` hold numbers, ``pictures`` what is drawn of them, and
``changes`` the models that are changed on purpose; ``python -m nanogpt2.studies.KEY`` records what
the chapter quotes. The kit that all of them share is ``nanogpt2.lab``.
"""
