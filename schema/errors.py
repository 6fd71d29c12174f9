"""The one base of every error that the product raises on purpose."""


class CortexflowError(Exception):
    """Says what is wrong, what was received and what to do.

    The command line prints the message on its last line and exits with `exit_code`; anything else
    that is raised is a defect and shows its traceback.
    """

    exit_code = 1
