"""How fast, measured honestly: `python -m benchmarks`, from the project's folder.

A machine's speed drifts by almost 2 within seconds, so no figure stands alone: each is measured in rounds, each round
measures its raw limit right beside it (the same rows by bare SQLite, the same bytes by a bare Falcon app), and the
ratio of the two is taken within the round.
"""
