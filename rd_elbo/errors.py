"""The one error users meet."""


class BadInput(ValueError):
    """What was asked for cannot be done; the message is one sentence naming the field, the value and what is allowed."""
