"""The study: grid, runs, pages and claims. Built on ``reprolib``, which knows nothing of it."""
