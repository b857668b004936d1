"""The sealed programs, a file for each case: the parts in which its program differs from `program.py`. Whoever reads on spoils the game."""
