"""A trained model for other programs, a file a kind.

    python -m nanogpt2.export --checkpoint runs/laptop --to hf --out exports/laptop

A kind's module has ``write(trained, folder)``, which fills an empty folder. Chapter: speedrun.
"""
