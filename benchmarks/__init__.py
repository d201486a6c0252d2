"""What is timed, and how: one module a part, each with `measure()`."""
