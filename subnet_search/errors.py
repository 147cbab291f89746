"""The one error that the package raises on purpose."""


class SubnetSearchError(ValueError):
    """Something the user gave cannot work: what was wrong, what was got, what was expected, what to do next.

    The command line prints the message without a traceback and exits with code 2; everything else that is
    raised is a defect of ours and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
