"""The book's build: run chapters, lay out pages, render, check notebooks."""
