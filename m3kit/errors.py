"""The one exception that a user is meant to read."""


class KitError(Exception):
    """Something the user can put right: the message says what was found and what to do."""
