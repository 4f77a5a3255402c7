"""What can go wrong in set-up, told in one line."""


class PrepareError(Exception):
    """Something that is needed cannot be set up."""
