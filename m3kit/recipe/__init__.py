"""``recipe=best``: settings chosen from the rows, the base and the machine, each with its reason."""
