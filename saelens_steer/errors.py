"""The one exception a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong; the message is one sentence that says what to change.

    The command line prints it without a traceback and exits with status 2.
    """
