"""The one error that the package raises on purpose."""


class SubnetSearchError(ValueError):
    """Something the user gave cannot work: what was wrong, what was got, what was expected, what to do next.

    The command line prints the message without a traceback and exits with code 2; everything else that is
    raised is a defect of ours and keeps its traceback.
    """
